"""gRPC server reflection, which only grpcio speaks: its handler, and the one that turns strangers away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

METHOD = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"


def reflection_handler(services: Iterable[str], pool: ThreadPoolExecutor) -> grpc.GenericRpcHandler:
    """Describe services to whoever asks.

    Args:
        services: Full names, beside health and reflection itself.
        pool: Threads for the streams: one stays open as long as its client likes, so it must not hold a worker.
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
