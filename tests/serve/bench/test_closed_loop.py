from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from serve.bench.closed_loop import LoadPlan, run_closed_loop
from serve.bench.errors import LoadTestError
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb

DELAY = 0.01


class SlowService:
    """Takes ten milliseconds, refuses user "bad", and remembers how many were in work at once."""

    def __init__(self) -> None:
        self.most_at_once = 0
        self.answered = 0
        self._now = 0
        self._lock = threading.Lock()

    def recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(DELAY)
        with self._lock:
            self._now -= 1
            self.answered += 1
        if request.user_id == "bad":
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown user")
        return pb.RecommendResponse(item_ids=["i"], timings=pb.Timings(total_us=10_000))


@pytest.fixture
def service() -> Iterator[tuple[SlowService, str]]:
    made = SlowService()
    server = grpc.server(ThreadPoolExecutor(8))
    handler = grpc.unary_unary_rpc_method_handler(
        made.recommend, pb.RecommendRequest.FromString, pb.RecommendResponse.SerializeToString
    )
    methods = grpc.method_handlers_generic_handler("lowpass.v1.RecommenderService", {"Recommend": handler})
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(0).wait()


def payloads(*users: str) -> Iterator[bytes]:
    return (pb.RecommendRequest(user_id=user).SerializeToString() for user in itertools.cycle(users))


@pytest.mark.parametrize("in_flight", [1, 4])
def test_latency_throughput_and_concurrency_of_a_known_server(service: tuple[SlowService, str], in_flight: int) -> None:
    made, target = service
    plan = LoadPlan(target, in_flight=in_flight, requests=40, warm_up=4)
    samples = run_closed_loop(plan, payloads("u"))
    assert len(samples.latencies_ns) == len(samples.answers) == 40
    assert made.answered == 44
    assert min(samples.latencies_ns) >= DELAY * 1e9
    assert made.most_at_once == in_flight
    assert samples.seconds >= 40 * DELAY / in_flight
    assert samples.errors == {}


def test_failures_are_counted_and_have_no_latency(service: tuple[SlowService, str]) -> None:
    samples = run_closed_loop(LoadPlan(service[1], requests=10, warm_up=0), payloads("u", "bad"))
    assert samples.errors == {"NOT_FOUND": 5}
    assert len(samples.latencies_ns) == 5


def test_no_server() -> None:
    with pytest.raises(LoadTestError, match="no server answered"):
        run_closed_loop(LoadPlan("127.0.0.1:1", requests=1, connect_timeout=0.3), payloads("u"))
