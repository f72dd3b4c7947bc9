"""What every transport must do; `tests/kits/transport_kit.py` is this text as tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from serve.answers.admission import Admission
from serve.answers.limits import Limits
from serve.rpc.credentials import Authorize, TlsFiles
from serve.rpc.services import AnyMethod
from serve.telemetry.telemetry import Telemetry

UNREADABLE = "the message cannot be read"
"""What is said of bytes that are not the method's request, with INTERNAL, as gRPC's own libraries do."""

MAX_METADATA_BYTES = 8 << 10
"""Headers of a call, each with 32 bytes on top (RFC 9113, 6.5.2). In memory they take up to ten times as much, and on
the wire a byte each: this times the streams of a connection is what one caller can make a server hold."""


@dataclass(frozen=True)
class TransportSettings:
    """What a transport is made of.

    Args:
        services: Methods by full service name.
        admission: Counts and refuses; `enter` and `leave` surround each admitted request, its waiting included.
        telemetry: Takes note of finished requests.
        threads: Threads that work on requests.
        batch_wait: How long to wait for more before a batch, in seconds; 0 batches what is there.
        shares_port: Whether other processes of ours listen on the address too; without it, a second one is refused.
        reflection: Whether to offer server reflection.
        prepare_thread: Called once in each of these threads.
        authorize: Says of a call's metadata why it may not call; None lets everybody. Health needs no key.
        tls: Certificates; None for plain text.
    """

    services: Mapping[str, tuple[AnyMethod, ...]]
    admission: Admission
    limits: Limits
    telemetry: Telemetry
    threads: int = 4
    batch_wait: float = 0.0
    shares_port: bool = False
    reflection: bool = True
    prepare_thread: Callable[[], None] | None = None
    authorize: Authorize | None = None
    tls: TlsFiles | None = None


class Transport(Protocol):
    """A server on one address: gRPC methods, `grpc.health.v1`, and reflection."""

    def bind(self, address: str) -> str:
        """Take the address; returns the one really bound.

        Args:
            address: `host:port`, with port 0 for any free one, or `unix:PATH`.

        Raises:
            AddressUnavailable: It is malformed, or somebody else has it.
            UnusableCredentials: The certificates are missing or wrong.
        """
        ...

    def start(self) -> None:
        """Accept connections. Health says NOT_SERVING until `set_serving`."""
        ...

    def set_serving(self, serving: bool) -> None:
        """What health says of the server and of each service."""
        ...

    def stop(self, grace: float) -> bool:
        """Accept nothing more, let what is in flight end, then close. Admission is closed before.

        Args:
            grace: How long what is in flight may take, in seconds.

        Returns:
            Whether everything ended in time.
        """
        ...


MakeTransport = Callable[[TransportSettings], Transport]
