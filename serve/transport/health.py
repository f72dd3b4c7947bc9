"""`grpc.health.v1` tied to readiness, answered off the worker threads so that load cannot make a probe fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

Send = Callable[[Any], None]


class Readiness:
    """The standard health servicer, starting NOT_SERVING, whose watches can be ended.

    Args:
        services: Full names beside "", which stands for the whole server.
        pool: Threads for probes.
    """

    def __init__(self, services: Iterable[str], pool: ThreadPoolExecutor) -> None:
        self._servicer = health.HealthServicer(experimental_non_blocking=True, experimental_thread_pool=pool)
        self._services = ("", health.SERVICE_NAME, *services)
        self._pool = pool
        self._watches: set[Send] = set()
        self._lock = threading.Lock()
        self.set_serving(False)

    def set_serving(self, serving: bool) -> None:
        """Say SERVING or NOT_SERVING for the server and every service."""
        status = health_pb2.HealthCheckResponse
        for name in self._services:
            self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)

    def end_watches(self) -> None:
        """End all open Watch streams: they would otherwise hold a drain for its whole grace."""
        with self._lock:
            watches, self._watches = self._watches, set()
        for send in watches:
            send(None)

    def handler(self) -> grpc.GenericRpcHandler:
        """Check and Watch, for a grpcio server."""

        def check(request: Any, context: Any) -> Any:
            return self._servicer.Check(request, context)

        def watch(request: Any, context: Any, send: Send) -> None:
            with self._lock:
                self._watches.add(send)
            context.add_callback(lambda: self._forget(send))
            self._servicer.Watch(request, context, send)

        # grpcio reads these attributes to run a method on other threads than the server's own.
        check.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        watch.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        watch.experimental_non_blocking = True  # type: ignore[attr-defined]
        request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        return grpc.method_handlers_generic_handler(
            health.SERVICE_NAME,
            {
                "Check": grpc.unary_unary_rpc_method_handler(check, request.FromString, response.SerializeToString),
                "Watch": grpc.unary_stream_rpc_method_handler(watch, request.FromString, response.SerializeToString),
            },
        )

    def _forget(self, send: Send) -> None:
        with self._lock:
            self._watches.discard(send)
