"""Online answers: a bundle in, gRPC answers and Prometheus series out. Imports no torch.

`lowpass serve` is `run(ServerOptions(...))`; a program that wants a server beside other things makes a `Server`, starts
and stops it. Callers need `serve.client` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve.process.options import ServerOptions
    from serve.process.server import Server, run

__all__ = ["Server", "ServerOptions", "run"]
_MODULES = {"Server": "serve.process.server", "ServerOptions": "serve.process.options", "run": "serve.process.server"}


def __getattr__(name: str) -> Any:
    """Import what is asked for and no more: clients and `lowpass serve --help` come by here too."""
    if name not in _MODULES:
        raise AttributeError(f"module 'serve' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
