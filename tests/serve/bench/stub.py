"""A recommender without models, whose pace the test chooses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb


class SlowService:
    """Takes as long as `seconds` says, refuses user "bad", and remembers how many were in work at once."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.most_at_once = 0
        self.answered = 0
        self._seconds = seconds
        self._now = 0
        self._lock = threading.Lock()

    def recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self._seconds())
        with self._lock:
            self._now -= 1
            self.answered += 1
        if request.user_id == "bad":
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown user")
        return pb.RecommendResponse(item_ids=["i"], timings=pb.Timings(total_us=7, search_us=3))


@contextmanager
def slow_server(seconds: Callable[[], float], threads: int = 64) -> Iterator[tuple[SlowService, str]]:
    """The service on a free port while the block runs, and its address."""
    service = SlowService(seconds)
    handler = grpc.unary_unary_rpc_method_handler(
        service.recommend, pb.RecommendRequest.FromString, pb.RecommendResponse.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(threads))
    methods = grpc.method_handlers_generic_handler("lowpass.v1.RecommenderService", {"Recommend": handler})
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(0).wait()
