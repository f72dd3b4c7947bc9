"""Many questions in one call: bounded, given up with their caller, and each with a fault of its own."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from google.rpc import code_pb2
from prometheus_client import CollectorRegistry

from serve.answers.errors import CallerLeft, DeadlineExpired, InvalidRequest
from serve.answers.fake import fake_model
from serve.answers.limits import Limits
from serve.live.store import ModelStore, ServedModel
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import RecommenderService
from serve.telemetry.metrics import Metrics
from tests.kits.broken_index import BrokenIndex, broken_recommender
from tests.serve.rpc.test_many import call

BLOCK = 64
USERS = 4 * BLOCK


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.answers.blocks.BLOCK", BLOCK)


def make(bad: tuple[int, ...] = (), **limits: Any) -> tuple[RecommenderService, BrokenIndex]:
    recommender, index = broken_recommender(USERS, bad, items=600)
    store = ModelStore()
    store.add(ServedModel(fake_model("one", "1")[0], recommender))
    return RecommenderService(store, Limits(**limits), Metrics(CollectorRegistry()), "0"), index


def users(**fields: Any) -> pb.BatchRecommendRequest:
    return pb.BatchRecommendRequest(
        requests=[pb.RecommendRequest(user_id=f"user-{user}", **{"k": 3, **fields}) for user in range(USERS)]
    )


def test_a_batch_that_costs_too_much_is_refused_before_any_work() -> None:
    service, index = make()
    with pytest.raises(InvalidRequest, match=r"requests: cost 1,280,000 together .* lower k, or send 200 at once"):
        service.batch(users(k=500, diversity=0.5), call())
    assert index.searches == 0
    assert len(service.batch(users(k=300, diversity=0.5), call()).entries) == USERS


def test_what_is_wrong_anyway_costs_nothing() -> None:
    service, _ = make(max_batch_cost=20)
    request = users(k=5000)
    request.requests[3].k = 20
    entries = service.batch(request, call()).entries
    assert [entry.status.code for entry in entries].count(code_pb2.INVALID_ARGUMENT) == USERS - 1
    assert len(entries[3].response.item_ids) == 20


def test_nothing_more_is_searched_once_the_caller_has_left() -> None:
    service, index = make()
    leaving = call()
    leaving.is_active = lambda: index.searches < 2
    with pytest.raises(CallerLeft):
        service.batch(users(), leaving)
    assert index.searches == 2, "of four blocks"


def test_nothing_more_is_searched_once_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    service, index = make()
    late = call(10.0)
    start = late.deadline.at - 10.0
    monkeypatch.setattr("serve.answers.admission.monotonic", lambda: start + 6.0 * index.searches)
    with pytest.raises(DeadlineExpired, match="allow more time, or ask for less at once"):
        service.batch(users(), late)
    assert index.searches == 2, "of four blocks"


def test_a_defect_in_an_entry_is_its_own_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    service, _ = make(bad=(5, 200))
    with caplog.at_level(logging.ERROR, "lowpass.serve"):
        entries = service.batch(users(), call()).entries
    failed = {place: entry.status for place, entry in enumerate(entries) if not entry.HasField("response")}
    assert {place: (one.code, one.message) for place, one in failed.items()} == {
        5: (code_pb2.INTERNAL, "internal error"),
        200: (code_pb2.INTERNAL, "internal error"),
    }
    (record,) = caplog.records
    assert record.fields["positions"] == [5, 200]  # type: ignore[attr-defined]
    assert "IndexError" in caplog.text


def test_a_defect_among_calls_answered_together_is_its_own() -> None:
    service, _ = make(bad=(5,))
    requests = list(users().requests)
    outcomes = service.recommend_many(requests, [call() for _ in requests])
    assert [place for place, one in enumerate(outcomes) if isinstance(one, Exception)] == [5]


@pytest.mark.parametrize("field", ["name", "version", "label"])
def test_a_model_named_at_length_is_a_wrong_field_and_is_not_repeated(field: str) -> None:
    service, _ = make()
    request = pb.RecommendRequest(user_id="user-1", model=pb.ModelSelector(**{field: "x" * 6000}))
    with pytest.raises(InvalidRequest, match=rf"model\.{field}: is longer than 512 bytes"):
        service.recommend(request, call())
    (entry,) = service.batch(pb.BatchRecommendRequest(requests=[request]), call()).entries
    assert entry.status.code == code_pb2.INVALID_ARGUMENT
    with pytest.raises(InvalidRequest):
        service.similar_items(pb.SimilarItemsRequest(item_id="item-1", model=request.model), call())
