from __future__ import annotations

import time
from contextlib import closing

import grpc
import pytest

from serve.answers.limits import Limits
from serve.transport import grpcio, whole_calls
from serve.transport.grpcio import GrpcioServer
from tests.kits.raw_http2 import HEADERS, RawConnection, call_headers, header_frames
from tests.kits.transport_bench import RECOMMEND, WAIT, Bench, eventually


def slow_calls(address: str, count: int) -> RawConnection:
    slow = RawConnection(address)
    assert slow.send(header_frames(2 * number + 1, call_headers(RECOMMEND)) for number in range(count))
    return slow


def test_this_grpcio_is_understood() -> None:
    assert whole_calls.UNDERSTOOD


def test_the_oldest_make_room_for_the_newest_unless_they_are_young(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_calls, "AT_MOST", 4)
    monkeypatch.setattr(whole_calls, "YOUNG", 0.3)
    with closing(Bench(GrpcioServer, Limits())) as bench:
        bench.open()
        slow = slow_calls(bench.address, 10)
        assert bench.ask("ann").item_ids == ["ann"]
        eventually(lambda: slow.answered.get(HEADERS, 0) == 6)
        assert bench.ask("ben").item_ids == ["ben"]
        assert slow.answered[HEADERS] <= 7, "no more than must: this one may have found its place taken"
        slow.close()


def test_a_stop_does_not_wait_for_what_never_arrives() -> None:
    bench = Bench(GrpcioServer, Limits())
    bench.open()
    slow = slow_calls(bench.address, 10)
    assert bench.ask("ann").item_ids == ["ann"]
    began = time.monotonic()
    bench.admission.close()
    assert bench.transport.stop(WAIT)
    assert time.monotonic() - began < WAIT / 2
    slow.close()
    bench.channel.close()


def test_a_grpcio_that_is_not_understood_serves_as_it_always_did(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (whole_calls, grpcio):
        monkeypatch.setattr(module, "UNDERSTOOD", False)
    with closing(Bench(GrpcioServer, Limits(max_in_flight=1), threads=1)) as bench:
        assert "this grpcio is not known" in caplog.text
        bench.open()
        assert bench.ask("ann").item_ids == ["ann"]
        assert [part.first_position for part in bench.stream(3)] == [0, 1, 2]
        bench.hold_threads(1)
        assert bench.refused().code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert bench.check() == "SERVING"
