from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any, cast

import grpc
import pytest

from serve.answers.admission import Deadline
from serve.answers.call import Call
from serve.answers.errors import AddressUnavailable
from serve.answers.limits import Limits
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import SERVICE, Method
from serve.transport.base import TransportSettings
from serve.transport.grpcio import GrpcioServer
from serve.transport.native import BATCH_AT_MOST, Backlog, Pending
from tests.kits.authority import Authority
from tests.kits.transport_bench import Bench, eventually
from tests.kits.transport_kit import TransportKit

native = pytest.importorskip("serve.transport.native", reason="the extra 'native' is not installed")


class TestNativeServer(TransportKit):
    transport = native.NativeServer
    speaks_tls = False
    sends_pushback = False
    ages_connections = False
    ends_slow_arrivals = False


def test_tls_is_refused_in_words(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(AddressUnavailable, match="speaks no TLS"):
        Bench(native.NativeServer, Limits(), tls=authority.server)


def test_an_age_of_connections_is_refused_in_words() -> None:
    with pytest.raises(AddressUnavailable, match="has no --max-connection-age; use --transport grpcio"):
        Bench(native.NativeServer, Limits(max_connection_age=60.0))


@pytest.mark.parametrize(("host", "warnings"), [("0.0.0.0", 1), ("127.0.0.1", 0), ("[::1]", 0)])
def test_who_binds_where_strangers_call_is_told_of_the_missing_bound(
    host: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lowpass.serve"):
        Bench(native.NativeServer, Limits(), address=f"{host}:0").close()
    assert [native.UNBOUNDED in record.getMessage() for record in caplog.records] == [True] * warnings


@pytest.mark.parametrize("threads", [1, 2])
def test_a_defect_outside_a_method_ends_its_calls_and_no_thread(threads: int, caplog: pytest.LogCaptureFixture) -> None:
    """Tried: an answer that cannot be serialized, in a batch with one that can, more often than there are threads."""
    bench = Bench(native.NativeServer, Limits(), threads=threads)
    bench.open()
    try:

        def defective(request: pb.RecommendRequest, call: Call) -> Any:
            if request.user_id == "defect":
                return Unserializable()
            return bench.echo(request, call)

        bench.behaviour = defective
        with caplog.at_level(logging.ERROR, "lowpass.serve"):
            for _ in range(threads + 3):
                error = bench.refused(user_id="defect", timeout=3.0)
                assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
        assert "ValueError: secret" in caplog.text
        assert bench.ask("next").item_ids == ["next"]
        eventually(lambda: bench.admission.in_flight == 0)
    finally:
        bench.close()


class Unserializable:
    def SerializeToString(self, **_: Any) -> bytes:
        raise ValueError("secret")


def test_a_defect_of_one_answer_spares_the_others_of_its_batch() -> None:
    bench = Bench(native.NativeServer, Limits(), threads=1)
    transport = cast("Any", bench.transport)
    real = transport._front
    front = transport._front = Front(real)
    try:
        now = perf_counter_ns()
        call = [Call(now, Deadline(monotonic() + 10), lambda: True, now, request_id=str(n)) for n in range(3)]
        message = pb.RecommendRequest(user_id="u").SerializeToString()
        batch = [Pending(number, 0, message, call[number]) for number in range(3)]
        for pending in batch:
            transport._active.add(pending.call_id)
            bench.admission.enter()
        transport._work(batch)
    finally:
        transport._front = real
        bench.close()
    assert front.answered == [0, 2]
    assert front.failed == [1]
    assert bench.admission.in_flight == 0


class Front:
    """Takes answers, except the second; the server's own threads go on receiving from the real one."""

    def __init__(self, real: Any) -> None:
        self.recv_batch_details = real.recv_batch_details
        self.answered: list[int] = []
        self.failed: list[int] = []

    def respond(self, call_id: int, payload: bytes, **_: Any) -> bool:
        if call_id == 1:
            raise RuntimeError("cannot")
        self.answered.append(call_id)
        return True

    def fail(self, call_id: int, code: int, message: str, trailers: Any = ()) -> bool:
        self.failed.append(call_id)
        return True


@pytest.mark.parametrize(("wait", "batches"), [(1.0, [4]), (0.0, None)])
def test_a_batch_may_wait_for_more(wait: float, batches: list[int] | None) -> None:
    """Tried: four requests one soon after the other; with a wait they are one batch, without one none is held back."""
    sizes: list[int] = []

    def answer_many(requests: Any, _calls: Any) -> list[pb.RecommendResponse]:
        sizes.append(len(requests))
        return [pb.RecommendResponse(item_ids=[request.user_id]) for request in requests]

    def make(settings: TransportSettings) -> Any:
        method = Method(
            "Recommend",
            pb.RecommendRequest,
            pb.RecommendResponse,
            lambda request, call: answer_many([request], [call])[0],
            answer_many,
        )
        services = {SERVICE: (method,)}
        return native.NativeServer(replace(settings, batch_wait=wait, services=services))

    bench = Bench(make, Limits())
    bench.open()
    try:
        calls = []
        for number in range(4):
            calls.append(bench.ask_later(f"u{number}"))
            if not wait:
                assert calls[-1].result().item_ids == [f"u{number}"]
        assert [call.result().item_ids[0] for call in calls] == ["u0", "u1", "u2", "u3"]
    finally:
        bench.close()
    assert sizes == (batches or [1] * 4)


def test_grpcio_does_not_wait_for_more() -> None:
    with pytest.raises(AddressUnavailable, match="--batch-wait-ms needs native"):
        Bench(lambda settings: GrpcioServer(replace(settings, batch_wait=0.1)), Limits())


MANY, ONE = 0, 1


def pending(number: int, method: int = MANY) -> Pending:
    return Pending(number, method, b"", Call(0, Deadline(monotonic() + 1), lambda: True, 0))


def backlog(threads: int, *calls: Pending) -> Backlog:
    made = Backlog(threads, lambda method: method == MANY)
    made.add(calls)
    return made


def ids(batch: list[Pending]) -> list[int]:
    return [call.call_id for call in batch]


def test_neighbours_that_may_be_answered_together_are_one_batch() -> None:
    made = backlog(9, pending(1), pending(2), pending(3, ONE), pending(4, ONE), pending(5))
    assert [ids(made.begin()) for _ in range(5)] == [[1, 2], [3], [4], [5], []]


def test_a_batch_is_bounded() -> None:
    made = backlog(9, *map(pending, range(BATCH_AT_MOST + 1)))
    assert ids(made.begin()) == list(range(BATCH_AT_MOST))
    assert ids(made.begin()) == [BATCH_AT_MOST]


def test_no_more_threads_than_there_are() -> None:
    made = backlog(1, pending(1, ONE), pending(2, ONE), pending(3, ONE))
    assert ids(made.begin()) == [1]
    assert made.begin() == [], "the only thread is at work"
    assert ids(made.go_on()) == [2]
    made.end()
    assert ids(made.begin()) == [3]
    assert made.go_on() == []
    made.add([pending(4)])
    assert ids(made.begin()) == [4], "idle again"
