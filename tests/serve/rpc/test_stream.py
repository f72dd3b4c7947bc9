"""Very many questions in one call: what the method does between two blocks of them."""

from __future__ import annotations

from typing import Any

import pytest
from google.rpc import code_pb2
from prometheus_client import CollectorRegistry

from serve.answers.call import Call
from serve.answers.errors import CallerLeft, DeadlineExpired, InvalidRequest, Overloaded
from serve.answers.fake import fake_model
from serve.answers.limits import Limits
from serve.live.store import ModelStore, ServedModel
from serve.rpc.interceptors import guard_stream
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import STREAM_BLOCK, RecommenderService, StreamMethod
from serve.telemetry.metrics import Metrics
from serve.telemetry.telemetry import Telemetry
from tests.serve.rpc.test_many import call


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def service(metrics: Metrics) -> RecommenderService:
    store = ModelStore()
    for name in ("one", "two"):
        store.add(ServedModel(*fake_model(name, "1", items=60)))
    return RecommenderService(store, Limits(max_stream=500), metrics, "0")


def users(count: int, **fields: Any) -> pb.StreamRecommendRequest:
    return pb.StreamRecommendRequest(
        requests=[pb.RecommendRequest(user_id=f"user-{number % 8}", k=3, **fields) for number in range(count)]
    )


def test_parts_are_blocks_in_order_and_entries_those_of_a_batch(service: RecommenderService) -> None:
    request = users(2 * STREAM_BLOCK + 5)
    request.requests[70].user_id = "nobody"
    request.requests[71].k = 5000
    parts = list(service.stream(request, call()))
    assert [part.first_position for part in parts] == [0, STREAM_BLOCK, 2 * STREAM_BLOCK]
    assert [len(part.entries) for part in parts] == [STREAM_BLOCK, STREAM_BLOCK, 5]
    entries = [entry for part in parts for entry in part.entries]
    whole = service.batch(pb.BatchRecommendRequest(requests=request.requests), call()).entries
    assert [entry.response.item_ids for entry in entries] == [entry.response.item_ids for entry in whole]
    assert entries[70].status.code == code_pb2.NOT_FOUND
    assert entries[71].status.code == code_pb2.INVALID_ARGUMENT


def test_nothing_more_is_computed_for_a_caller_who_left_or_is_late(service: RecommenderService) -> None:
    left = call()
    parts = service.stream(users(3 * STREAM_BLOCK), left)
    next(parts)
    left.is_active = lambda: False
    with pytest.raises(CallerLeft):
        next(parts)
    late = call()
    parts = service.stream(users(3 * STREAM_BLOCK), late)
    next(parts)
    late.deadline = call(-1.0).deadline
    with pytest.raises(DeadlineExpired):
        next(parts)


def test_one_place_is_given_back_however_a_stream_ends(service: RecommenderService) -> None:
    first = service.stream(users(2 * STREAM_BLOCK), call())
    next(first)
    with pytest.raises(Overloaded) as caught:
        next(service.stream(users(1), call()))
    assert caught.value.retry_after == 1.0
    first.close()
    assert len(list(service.stream(users(1), call()))) == 1
    late = service.stream(users(1), call(-1.0))
    with pytest.raises(DeadlineExpired):
        next(late)
    assert len(list(service.stream(users(1), call()))) == 1


@pytest.mark.parametrize("count", [0, 501])
def test_the_bound_is_named(service: RecommenderService, count: int) -> None:
    with pytest.raises(InvalidRequest, match=f"has {count} entries; send between 1 and 500"):
        next(service.stream(users(count), call()))


def test_a_stream_of_several_models_counts_for_none(service: RecommenderService, metrics: Metrics) -> None:
    (method,) = (each for each in service.methods() if isinstance(each, StreamMethod))

    def run(request: pb.StreamRecommendRequest) -> Call:
        own = call()
        assert list(guard_stream(method, Telemetry(metrics))(request, own))
        return own

    assert run(users(3)).model == "one"
    mixed = users(STREAM_BLOCK + 1)
    mixed.requests[STREAM_BLOCK].model.name = "two"
    assert run(mixed).model == ""
    counted = {"method": "StreamRecommend", "model": "one", "version": "1", "code": "OK"}
    assert metrics.registry.get_sample_value("lowpass_request_duration_seconds_count", counted) == 1


def test_giving_up_counts_as_cancelled(service: RecommenderService, metrics: Metrics) -> None:
    (method,) = (each for each in service.methods() if isinstance(each, StreamMethod))
    parts = guard_stream(method, Telemetry(metrics))(users(2 * STREAM_BLOCK), call())
    next(parts)
    parts.close()
    counted = {"method": "StreamRecommend", "model": "one", "version": "1", "code": "CANCELLED"}
    assert metrics.registry.get_sample_value("lowpass_request_duration_seconds_count", counted) == 1
