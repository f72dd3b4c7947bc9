"""What every transport must do with answers in parts; `TransportKit` inherits it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from serve.answers.call import Call
from serve.answers.errors import UnknownUser
from serve.answers.limits import Limits
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import Parts
from tests.kits.transport_bench import WAIT, Bench, details_of, eventually

LARGE = "x" * (1 << 20)


def endless(request: pb.StreamRecommendRequest, call: Call) -> Parts[pb.StreamRecommendResponse]:
    """Large parts until somebody says stop."""
    large = pb.RecommendResponse(item_ids=[LARGE])
    position = 0
    while call.is_active():
        call.deadline.check()
        yield pb.StreamRecommendResponse(first_position=position, entries=[pb.BatchRecommendEntry(response=large)])
        position += 1


def two_parts(
    position: int, read: threading.Event
) -> Callable[[pb.StreamRecommendRequest, Call], Parts[pb.StreamRecommendResponse]]:
    """A part, and the next one once `read` is set."""

    def parts(request: pb.StreamRecommendRequest, call: Call) -> Parts[pb.StreamRecommendResponse]:
        yield pb.StreamRecommendResponse(first_position=position)
        assert read.wait(WAIT)
        yield pb.StreamRecommendResponse(first_position=position + 1)

    return parts


def ending(stream: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        for _ in stream:
            pass
    error: Any = caught.value
    code: grpc.StatusCode = error.code()
    return code


class StreamKit:
    """The checks."""

    def running(self, limits: Limits | None = None, **options: Any) -> AbstractContextManager[Bench]:
        raise NotImplementedError

    def test_a_stream_comes_in_order_and_counts_once(self) -> None:
        with self.running() as bench:
            stream = bench.stream(200)
            assert [part.first_position for part in stream] == list(range(200))
            assert stream.code() is grpc.StatusCode.OK
            assert len(dict(stream.trailing_metadata())["x-request-id"]) == 16
            eventually(lambda: bench.count("OK", "StreamRecommend") == 1)
            eventually(lambda: bench.admission.in_flight == 0)

    def test_the_first_part_comes_before_the_last_is_made(self) -> None:
        with self.running() as bench:
            read = threading.Event()
            bench.parts = two_parts(7, read)
            stream = bench.stream(1)
            assert next(stream).first_position == 7
            assert bench.admission.in_flight == 1
            read.set()
            assert [part.first_position for part in stream] == [8]

    def test_a_stream_may_fail_midway_with_code_and_details(self) -> None:
        with self.running() as bench:

            def fail(request: pb.StreamRecommendRequest, call: Call) -> Parts[pb.StreamRecommendResponse]:
                yield pb.StreamRecommendResponse(first_position=0)
                raise UnknownUser("ann")

            bench.parts = fail
            stream = bench.stream(2)
            assert next(stream).first_position == 0
            assert ending(stream) is grpc.StatusCode.NOT_FOUND
            assert details_of(stream, error_details_pb2.ResourceInfo).resource_name == "ann"
            assert bench.count("NOT_FOUND", "StreamRecommend") == 1
            eventually(lambda: bench.admission.in_flight == 0)

    def test_a_defect_in_a_stream_leaks_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        with self.running() as bench, caplog.at_level(logging.ERROR, "lowpass.serve"):

            def fail(request: pb.StreamRecommendRequest, call: Call) -> Parts[pb.StreamRecommendResponse]:
                yield pb.StreamRecommendResponse()
                raise KeyError("secret")

            bench.parts = fail
            stream = bench.stream(1)
            assert ending(stream) is grpc.StatusCode.INTERNAL
            assert stream.details() == "internal error"
            assert "KeyError: 'secret'" in caplog.text
            assert bench.ask("still here").item_ids == ["still here"]

    def test_a_caller_who_leaves_a_stream_frees_its_thread(self) -> None:
        with self.running(threads=1) as bench:
            bench.parts = endless
            stream = bench.stream(1)
            next(stream)
            stream.cancel()
            eventually(lambda: bench.count("CANCELLED", "StreamRecommend") == 1)
            eventually(lambda: bench.admission.in_flight == 0)
            assert bench.ask("next").item_ids == ["next"]

    def test_a_caller_who_does_not_read_is_not_buffered_and_not_waited_for(self) -> None:
        with self.running(Limits(max_stream_deadline=1.0), threads=1) as bench:
            made = []

            def count(request: pb.StreamRecommendRequest, call: Call) -> Parts[pb.StreamRecommendResponse]:
                for part in endless(request, call):
                    made.append(1)
                    yield part

            bench.parts = count
            stream = bench.stream(1)
            next(stream)
            time.sleep(0.5)
            before = len(made)
            assert before < 30, "a few MiB are on their way, not all that could be made"
            eventually(lambda: bench.admission.in_flight == 0)
            assert bench.ask("next").item_ids == ["next"]
            stream.cancel()

    def test_a_stream_has_a_deadline_of_its_own(self) -> None:
        with self.running(Limits(max_deadline=0.05, max_stream_deadline=0.5)) as bench:
            bench.parts = endless
            stream = bench.stream(1)
            started = time.monotonic()
            assert ending(stream) is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - started > 0.3
            assert ending(bench.stream(1, timeout=0.1)) is grpc.StatusCode.DEADLINE_EXCEEDED
            eventually(lambda: bench.admission.in_flight == 0)

    def test_a_full_server_refuses_streams_too(self) -> None:
        with self.running(Limits(max_in_flight=1), threads=1) as bench:
            (held,) = bench.hold_threads(1)
            assert ending(bench.stream(1)) is grpc.StatusCode.RESOURCE_EXHAUSTED
            bench.release.set()
            assert held.result()

    def test_draining_lets_a_stream_end(self) -> None:
        with self.running() as bench:
            read = threading.Event()
            bench.parts = two_parts(0, read)
            stream = bench.stream(1)
            next(stream)
            bench.admission.close()
            stopping = threading.Thread(target=bench.transport.stop, args=(WAIT,))
            stopping.start()
            time.sleep(0.1)
            read.set()
            assert next(stream).first_position == 1
            assert list(stream) == []
            stopping.join(WAIT)
            assert not stopping.is_alive()
