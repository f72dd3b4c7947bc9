"""`grpc.health.v1` over the native front: Check at once, Watch as a stream that is told of every change."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2

SERVICE = "grpc.health.v1.Health"
Response = health_pb2.HealthCheckResponse


class NativeHealth:
    """The standard health service, starting NOT_SERVING.

    Args:
        services: Full names beside "", which stands for the whole server.
        first_method: Number of the first of its methods at the front.

    Attributes:
        front: Where answers go.
        methods: Path, and whether it streams.
    """

    def __init__(self, services: Iterable[str], first_method: int) -> None:
        self.front: Any = None
        self.methods = [(f"/{SERVICE}/Check", False), (f"/{SERVICE}/Watch", True)]
        self._check = first_method
        self._known = frozenset(("", SERVICE, *services))
        self._is_serving = False
        self._watches: dict[int, bool] = {}
        self._lock = threading.Lock()

    def set_serving(self, serving: bool) -> None:
        """Say SERVING or NOT_SERVING for the server and every service."""
        with self._lock:
            self._is_serving = serving
            for call_id, is_known in self._watches.items():
                if is_known:
                    self.front.stream_send(call_id, self._answer(is_known))

    def answer(self, call_id: int, method: int, payload: bytes) -> None:
        """Answer a call of one of its methods."""
        try:
            service = health_pb2.HealthCheckRequest.FromString(payload).service
        except DecodeError:
            self.front.fail(call_id, code_pb2.INTERNAL, "the message cannot be read")
            return
        is_known = service in self._known
        if method != self._check:
            with self._lock:
                self._watches[call_id] = is_known
                self.front.stream_send(call_id, self._answer(is_known))
        elif is_known:
            self.front.respond(call_id, self._answer(is_known))
        else:
            self.front.fail(call_id, code_pb2.NOT_FOUND, "unknown service")

    def forget(self, call_id: int) -> None:
        """A caller went away."""
        with self._lock:
            self._watches.pop(call_id, None)

    def end_watches(self) -> None:
        """End all open Watch streams."""
        with self._lock:
            watches, self._watches = list(self._watches), {}
        for call_id in watches:
            self.front.stream_end(call_id)

    def _answer(self, is_known: bool) -> bytes:
        if not is_known:
            return Response(status=Response.SERVICE_UNKNOWN).SerializeToString()
        return Response(status=Response.SERVING if self._is_serving else Response.NOT_SERVING).SerializeToString()
