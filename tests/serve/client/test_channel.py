"""Calls that break off because a server died within its answer: what only reads is asked again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from serve.client.channel import GrpcClient
from serve.client.errors import RecommenderError, ServerUnavailable
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb

RESET = (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")
GONE = (grpc.StatusCode.UNAVAILABLE, "connection refused")


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__()
        self._said = (code, details)

    def code(self) -> grpc.StatusCode:
        return self._said[0]

    def details(self) -> str:
        return self._said[1]

    def trailing_metadata(self) -> tuple[Any, ...]:
        return ()


class Server:
    """Answers `lives[i]` questions at the i-th call and then ends as told; the last call ends well."""

    def __init__(self, *lives: int, end: tuple[grpc.StatusCode, str] = RESET) -> None:
        self._lives = list(lives)
        self._end = end
        self.calls = 0
        self.timeouts: list[float] = []

    def __call__(self, request: Any, timeout: float, metadata: Any) -> Any:
        self.calls += 1
        assert timeout > 0
        return Call(request, self._lives.pop(0), self._end if self._lives else None)

    def unary(self, request: Any, timeout: float, metadata: Any) -> Any:
        self.calls += 1
        self.timeouts.append(timeout)
        if self._lives.pop(0):
            return request
        raise Failed(*self._end)


def entry_of(name: str) -> pb.BatchRecommendEntry:
    return pb.BatchRecommendEntry(status=status_pb2.Status(message=name))


class Call:
    def __init__(self, request: list[str], most: int, end: tuple[grpc.StatusCode, str] | None) -> None:
        self._request, self._most, self._end = request, most, end

    def __iter__(self) -> Iterator[Any]:
        for name in self._request[: self._most]:
            yield pb.StreamRecommendResponse(entries=[entry_of(name)])
        if self._end:
            raise Failed(*self._end)

    def code(self) -> grpc.StatusCode | None:
        return self._end[0] if self._end else None

    def cancel(self) -> None:
        pass


class Reader(GrpcClient):
    reads_only = True


def read(kind: type[GrpcClient], server: Server) -> list[str]:
    asked = ["a", "b", "c", "d"]
    with kind("nobody:1", 1.0, None, "") as client:
        stream = client._stream(server, lambda answered: asked[answered:], (), 5.0)
        assert next(stream) is None
        return [entry.status.message for entry in stream]


@pytest.mark.parametrize("end", [RESET, GONE])
def test_a_stream_goes_on_where_it_was(end: tuple[grpc.StatusCode, str]) -> None:
    server = Server(1, 2, 9, end=end)
    assert read(Reader, server) == ["a", "b", "c", "d"]
    assert server.calls == 3


def test_a_stream_that_gets_nowhere_ends() -> None:
    with pytest.raises(ServerUnavailable):
        read(Reader, Server(2, 0, 9, end=GONE))


def test_what_changes_something_is_not_asked_again() -> None:
    with pytest.raises(RecommenderError, match="RST_STREAM"):
        read(GrpcClient, Server(1, 9))


def test_another_end_is_an_error() -> None:
    with pytest.raises(RecommenderError, match="a defect"):
        read(Reader, Server(1, 9, end=(grpc.StatusCode.INTERNAL, "a defect")))


def test_an_answer_that_broke_off_is_asked_for_once_more() -> None:
    server = Server(0, 1)
    with Reader("nobody:1", 1.0, None, "") as client:
        assert client._call(server.unary, "q") == "q"
        assert server.timeouts[1] < server.timeouts[0] == 1.0, "one deadline for both"
    with GrpcClient("nobody:1", 1.0, None, "") as client, pytest.raises(RecommenderError):
        client._call(Server(0, 1).unary, "q")
