"""The service under random messages: an answer that keeps its promises, or a refusal by name; never a defect."""

from __future__ import annotations

from time import monotonic, perf_counter_ns
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serve.answers.admission import Deadline
from serve.answers.call import Call
from serve.answers.fake import fake_model
from serve.answers.limits import Limits
from serve.live.store import ModelStore, ServedModel
from serve.rpc.interceptors import guard, guard_many, guard_stream
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import AnyMethod, Method, RecommenderService
from serve.rpc.status import Refusal
from serve.telemetry.metrics import Metrics
from serve.telemetry.telemetry import Telemetry

pytestmark = pytest.mark.fuzz
LIMITS = Limits(max_k=200, max_batch=2, max_stream=2)

ids = st.sampled_from(["user-1", "user-7", "item-0", "item-5", "nobody", "", "x" * 513, "\0", " user-1", "é"])
some_ids = st.lists(ids, max_size=5)
numbers = st.floats(width=32) | st.sampled_from([0.0, 0.3, 1.0, -1.0, 1e30, float("nan")])
models = st.builds(pb.ModelSelector, name=st.sampled_from(["", "fake", "none"]) | st.text(max_size=4))
recommend = st.builds(
    pb.RecommendRequest,
    user_id=st.none() | ids,
    history=st.none() | st.builds(pb.History, item_ids=some_ids),
    k=st.integers(0, 250) | st.integers(0, 2**32 - 1),
    offset=st.sampled_from([0, 1, 50, 10_001, 2**32 - 1]),
    exclude_item_ids=some_ids,
    allow_item_ids=some_ids,
    recent_item_ids=some_ids,
    allow_categories=some_ids,
    allow_fallback=st.booleans(),
    min_score=st.none() | numbers,
    diversity=numbers,
    popularity_discount=numbers,
    exact=st.booleans(),
    include_seen=st.booleans(),
    include_titles=st.booleans(),
    model=st.none() | models,
)
MESSAGES = {
    "Recommend": recommend,
    "BatchRecommend": st.builds(pb.BatchRecommendRequest, requests=st.lists(recommend, max_size=3)),
    "StreamRecommend": st.builds(pb.StreamRecommendRequest, requests=st.lists(recommend, max_size=3)),
    "SimilarItems": st.builds(pb.SimilarItemsRequest, item_id=ids, k=st.integers(0, 250), exclude_item_ids=some_ids),
    "GetInfo": st.builds(pb.GetInfoRequest),
}


def make_service() -> tuple[dict[str, AnyMethod], Telemetry]:
    store, telemetry = ModelStore(), Telemetry(Metrics(CollectorRegistry()))
    model = ServedModel(*fake_model())
    store.add(model)
    store.point(model.summary.name, {"stable": model.summary.version})
    service = RecommenderService(store, LIMITS, telemetry.metrics, "0", None, max_streams=2)
    return {method.name: method for method in service.methods()}, telemetry


METHODS, TELEMETRY = make_service()


def make_call() -> Call:
    return Call(perf_counter_ns(), Deadline(monotonic() + 60), lambda: True, perf_counter_ns())


def ask(method: AnyMethod, request: Message) -> list[Message]:
    """All that is answered, unless it is refused by name."""
    try:
        if isinstance(method, Method):
            return [guard(method, TELEMETRY)(request, make_call())]
        return list(guard_stream(method, TELEMETRY)(request, make_call()))
    except Refusal as refusal:
        refused = refusal.status
    assert refused.code not in {code_pb2.INTERNAL, code_pb2.UNKNOWN, code_pb2.OK}, refused
    assert refused.message
    return []


def check(request: pb.RecommendRequest, answer: pb.RecommendResponse) -> None:
    found = list(answer.item_ids)
    assert len(found) == len(answer.scores) == len(set(found))
    assert len(found) <= (request.k or LIMITS.default_k)
    assert not set(found) & set(request.exclude_item_ids)
    assert all(score == score for score in answer.scores), "a number"
    if request.allow_item_ids:
        assert set(found) <= set(request.allow_item_ids)


def test_every_method_is_asked() -> None:
    assert MESSAGES.keys() == METHODS.keys()


@pytest.mark.parametrize("name", MESSAGES)
@given(data=st.data())
def test_any_message_is_answered_as_promised_or_refused_by_name(name: str, data: st.DataObject) -> None:
    request: Any = data.draw(MESSAGES[name])
    answers: list[Any] = ask(METHODS[name], request)
    if answers and name == "Recommend":
        check(request, answers[0])
    if answers and name in {"BatchRecommend", "StreamRecommend"}:
        entries = [entry for answer in answers for entry in answer.entries]
        assert len(entries) == len(request.requests)
        for asked, entry in zip(request.requests, entries, strict=True):
            assert entry.status.code != code_pb2.INTERNAL
            if entry.HasField("response"):
                check(asked, entry.response)


@given(requests=st.lists(recommend, min_size=1, max_size=4))
def test_calls_answered_together_are_answered_as_each_alone(requests: list[pb.RecommendRequest]) -> None:
    method = METHODS["Recommend"]
    assert isinstance(method, Method)
    together = guard_many(method, TELEMETRY)(requests, [make_call() for _ in requests])
    for request, outcome in zip(requests, together, strict=True):
        alone: list[Any] = ask(method, request)
        if isinstance(outcome, Refusal):
            assert outcome.status.code != code_pb2.INTERNAL
            assert alone == []
        else:
            assert isinstance(outcome, pb.RecommendResponse)
            assert list(outcome.item_ids) == list(alone[0].item_ids)


@pytest.mark.parametrize("name", MESSAGES)
@given(data=st.data())
def test_any_bytes_are_a_message_or_none(name: str, data: st.DataObject) -> None:
    whole = data.draw(MESSAGES[name]).SerializeToString()
    at = data.draw(st.integers(0, len(whole)))
    sent = data.draw(st.sampled_from([whole[:at], whole[at:], whole + whole])) + data.draw(st.binary(max_size=8))
    try:
        request = METHODS[name].request.FromString(sent)
    except DecodeError:
        return
    ask(METHODS[name], request)
