"""Which transport serves: by name, or the fastest that can do all that is asked for."""

from __future__ import annotations

import importlib.util
from typing import Literal

from serve.answers.errors import ExtraMissing
from serve.transport.base import MakeTransport
from serve.transport.grpcio import GrpcioServer

TransportName = Literal["grpcio", "native", "auto"]
NATIVE_PACKAGE = "pygrpc_native"


def choose_transport(name: TransportName, *, needs_grpcio: bool) -> tuple[str, MakeTransport]:
    """A transport's name and how to make it.

    Args:
        name: "auto" takes `native` where it is installed and can do what is asked for, else `grpcio`.
        needs_grpcio: Whether `native` cannot do what is asked for: TLS, an age of connections, other machines.

    Raises:
        ExtraMissing: `native` is asked for and not installed.
    """
    is_there = importlib.util.find_spec(NATIVE_PACKAGE) is not None
    if name == "native" and not is_there:
        raise ExtraMissing("--transport native: needs the package pygrpc-native: pip install 'lowpass[native]'")
    if name == "grpcio" or not is_there or (name == "auto" and needs_grpcio):
        return "grpcio", GrpcioServer
    from serve.transport.native import NativeServer

    return "native", NativeServer
