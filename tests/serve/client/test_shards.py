"""The client before servers of shards: whom each call is for, and what becomes of a batch or a stream over several."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from serve.client.answers import RecommendationList
from serve.client.errors import RecommenderError, ServerUnavailable
from serve.client.recommender import RecommenderClient
from serve.client.shards import SHARD_HEADER, shard_of, shards_of, to_metadata
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.pb.lowpass.v1 import recommender_pb2_grpc

SHARDS = 4
USERS = [f"u{number}" for number in range(200)]


class Routed(recommender_pb2_grpc.RecommenderServiceServicer):
    """Stands for a proxy and all shards: answers each with the header it came with; one shard may be down."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.calls: list[tuple[str, int]] = []

    def answers(self, requests: Any, context: grpc.ServicerContext) -> list[pb.BatchRecommendEntry]:
        metadata = dict(context.invocation_metadata())
        shard = str(metadata.get(SHARD_HEADER, "any"))
        self.calls.append((shard, len(requests)))
        if shard in self.down:
            context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return [pb.BatchRecommendEntry(response=self.answer(request, shard)) for request in requests]

    def answer(self, request: pb.RecommendRequest, shard: str) -> pb.RecommendResponse:
        subject = request.user_id or ",".join(request.history.item_ids)
        return pb.RecommendResponse(item_ids=[subject, shard], scores=[1.0, 0.0])

    def Recommend(self, request: Any, context: Any) -> pb.RecommendResponse:
        (entry,) = self.answers([request], context)
        return entry.response

    def BatchRecommend(self, request: Any, context: Any) -> pb.BatchRecommendResponse:
        return pb.BatchRecommendResponse(entries=self.answers(request.requests, context))

    def StreamRecommend(self, request: Any, context: Any) -> Iterator[pb.StreamRecommendResponse]:
        entries = self.answers(request.requests, context)
        for first in range(0, len(entries), 8):
            yield pb.StreamRecommendResponse(first_position=first, entries=entries[first : first + 8])

    def SimilarItems(self, request: Any, context: Any) -> pb.SimilarItemsResponse:
        self.answers([], context)
        return pb.SimilarItemsResponse(item_ids=["similar"])


@pytest.fixture
def routed() -> Iterator[tuple[Routed, RecommenderClient]]:
    server, service = grpc.server(ThreadPoolExecutor(8)), Routed()
    recommender_pb2_grpc.add_RecommenderServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with RecommenderClient(f"127.0.0.1:{port}", timeout=20.0, user_shards=SHARDS) as client:
        yield service, client
    server.stop(None).wait()


def test_histories_and_a_single_shard_go_anywhere() -> None:
    assert shards_of(["u1", ["i1"], "u2"], 4) == [shard_of("u1", 4), None, shard_of("u2", 4)]
    assert shards_of(["u1", ["i1"]], 1) == [None, None]
    assert to_metadata(0) == (("x-lowpass-shard", "0"),)
    assert to_metadata(None) == ()


@pytest.mark.parametrize("shards", [0, -1])
def test_a_number_of_shards_that_is_none(shards: int) -> None:
    with pytest.raises(ValueError, match="user_shards"):
        RecommenderClient("127.0.0.1:9", user_shards=shards)


def test_a_call_names_the_shard_of_its_user(routed: tuple[Routed, RecommenderClient]) -> None:
    _, client = routed
    for user in USERS[:20]:
        assert client.recommend(user).item_ids == (user, str(shard_of(user, SHARDS)))
    assert client.recommend(history=["i1"]).item_ids == ("i1", "any")
    assert client.similar_items("i1").item_ids == ("similar",)


def heard(answer: RecommendationList | RecommenderError) -> tuple[str, ...]:
    assert isinstance(answer, RecommendationList), answer
    return answer.item_ids


def test_a_batch_is_one_call_a_shard_and_comes_back_in_order(routed: tuple[Routed, RecommenderClient]) -> None:
    service, client = routed
    subjects = [*USERS, ["i1", "i2"], *reversed(USERS)]
    found = [heard(answer) for answer in client.batch_recommend(subjects)]
    assert found[200] == ("i1,i2", "any")
    del found[200]
    assert found == [(user, str(shard_of(user, SHARDS))) for user in [*USERS, *reversed(USERS)]]
    assert sorted(shard for shard, _ in service.calls) == ["0", "1", "2", "3", "any"]


def test_a_stream_comes_back_in_order(routed: tuple[Routed, RecommenderClient]) -> None:
    service, client = routed
    subjects: list[str | list[str]] = [*USERS, ["i1", "i2"]]
    found = [heard(answer) for answer in client.stream_recommend(iter(subjects))]
    assert found == [*[(user, str(shard_of(user, SHARDS))) for user in USERS], ("i1,i2", "any")]
    assert len(service.calls) == 5


def test_a_stream_that_is_not_wanted_any_more_ends_all_its_calls(routed: tuple[Routed, RecommenderClient]) -> None:
    _, client = routed
    stream = client.stream_recommend(USERS)
    assert heard(next(stream))[0] == "u0"
    stream.close()
    assert heard(client.recommend("u1"))[0] == "u1"


def test_a_shard_that_is_down_fails_its_own_users_alone(routed: tuple[Routed, RecommenderClient]) -> None:
    service, client = routed
    service.down = {"2"}
    for user, answer in zip(USERS, client.batch_recommend(USERS), strict=True):
        if shard_of(user, SHARDS) == 2:
            assert isinstance(answer, ServerUnavailable)
        else:
            assert heard(answer)[0] == user
    service.down = {"0", "1", "2", "3"}
    with pytest.raises(ServerUnavailable):
        client.batch_recommend(USERS)


def test_a_stream_breaks_off_where_a_shard_is_down(routed: tuple[Routed, RecommenderClient]) -> None:
    service, client = routed
    service.down = {"2"}
    first = next(place for place, user in enumerate(USERS) if shard_of(user, SHARDS) == 2)
    answers = client.stream_recommend(USERS)
    assert [heard(next(answers))[0] for _ in range(first)] == USERS[:first]
    with pytest.raises(ServerUnavailable):
        next(answers)
