"""gRPC server reflection, which only grpcio speaks, and only for those who may call.

A grpcio transport takes `reflection_handler` into its own server. The native transport passes such calls on to a
`ReflectionServer`: a grpcio server on a Unix socket beside it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serve.answers.errors import Unauthenticated
from serve.rpc.credentials import Authorize

METHOD = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"


def reflection_handler(services: Iterable[str], pool: ThreadPoolExecutor) -> grpc.GenericRpcHandler:
    """Describe services to whoever asks.

    Args:
        services: Full names, beside health and reflection itself.
        pool: Threads for the streams: one stays open as long as its client likes, so it must not hold a thread.
    """
    servicer = reflection.ReflectionServicer((*services, "grpc.health.v1.Health", reflection.SERVICE_NAME))

    def reflect(requests: Any, context: Any) -> Any:
        return servicer.ServerReflectionInfo(requests, context)

    reflect.experimental_thread_pool = pool  # type: ignore[attr-defined]  # read by grpcio
    handler = grpc.stream_stream_rpc_method_handler(
        reflect,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": handler})


def refusing_handler(refuse: Callable[[Any, Any], Any]) -> Any:
    """A handler of the reflection method that only refuses."""
    return grpc.stream_stream_rpc_method_handler(refuse, bytes, bytes)


class ReflectionServer:
    """A grpcio server that speaks reflection and nothing else.

    Args:
        services: Full names of what is described.
        authorize: Says of a call's metadata why it may not call; None lets everybody.
    """

    def __init__(self, services: Iterable[str], authorize: Authorize | None) -> None:
        # Linux's abstract names leave no file behind, however the process ends.
        name = f"lowpass-{secrets.token_hex(16)}"
        self.path = f"\0{name}"
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="lowpass-reflection")
        self._server = grpc.server(self._pool, interceptors=[_Door(authorize)] if authorize is not None else [])
        self._server.add_generic_rpc_handlers((reflection_handler(services, self._pool),))
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

        return refusing_handler(refuse)
