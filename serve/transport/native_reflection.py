"""Reflection beside the native front, which does not speak it: a grpcio server on a Unix socket."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from serve.answers.errors import Unauthenticated
from serve.rpc.credentials import Authorize
from serve.transport import reflection


class ReflectionServer:
    """A grpcio server that speaks reflection and nothing else.

    Args:
        services: Full names of what is described.
        authorize: Says of a call's metadata why it may not call; None lets everybody.

    Attributes:
        path: Of its socket.
    """

    def __init__(self, services: Iterable[str], authorize: Authorize | None) -> None:
        # Linux's abstract names leave no file behind, however the process ends.
        name = f"lowpass-{secrets.token_hex(16)}"
        self.path = f"\0{name}"
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="lowpass-reflection")
        self._server = grpc.server(self._pool, interceptors=[_Door(authorize)] if authorize is not None else [])
        self._server.add_generic_rpc_handlers((reflection.reflection_handler(services, self._pool),))
        self._server.add_insecure_port(f"unix-abstract:{name}")
        self._server.start()

    def stop(self) -> None:
        """Close."""
        self._server.stop(0.0).wait()
        self._pool.shutdown()


class _Door(grpc.ServerInterceptor):
    """Lets only those in who may call."""

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if self._authorize(handler_call_details.invocation_metadata) is None:
            return continuation(handler_call_details)

        def refuse(_requests: Any, context: Any) -> Any:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(Unauthenticated()))

        return reflection.refusing_handler(refuse)
