"""Answering several calls at once gives what answering each alone gives."""

from __future__ import annotations

from time import monotonic, perf_counter_ns, sleep
from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2, status_pb2
from prometheus_client import CollectorRegistry

from serve.answers.admission import Deadline
from serve.answers.call import Call
from serve.answers.errors import DeadlineExpired
from serve.answers.fake import fake_model
from serve.answers.limits import Limits
from serve.live.store import ModelStore, ServedModel
from serve.rpc.interceptors import guard, guard_many
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import Method, RecommenderService
from serve.rpc.status import Refusal
from serve.telemetry.metrics import Metrics
from serve.telemetry.telemetry import Telemetry


def call(seconds: float = 10.0, active: bool = True) -> Call:
    now = perf_counter_ns()
    return Call(now, Deadline(monotonic() + seconds), lambda: active, now)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def method(metrics: Metrics) -> Method:
    store = ModelStore()
    for name in ("one", "two"):
        store.add(ServedModel(*fake_model(name, "1", items=60)))
    recommend = RecommenderService(store, Limits(), metrics, "0").methods()[0]
    assert isinstance(recommend, Method)
    return recommend


def requests() -> list[pb.RecommendRequest]:
    rng = np.random.default_rng(0)
    made = [
        pb.RecommendRequest(user_id=f"user-{rng.integers(8)}", k=int(rng.integers(1, 20)), exact=bool(rng.integers(2)))
        for _ in range(20)
    ]
    made.append(pb.RecommendRequest(user_id="user-1", model=pb.ModelSelector(name="two"), k=4))
    made.append(pb.RecommendRequest(history=pb.History(item_ids=["item-3", "item-4"]), k=4))
    made.append(pb.RecommendRequest(user_id="nobody"))
    made.append(pb.RecommendRequest(user_id="user-1", k=5000))
    made.append(pb.RecommendRequest(user_id="user-1", model=pb.ModelSelector(name="three")))
    return made


def plain(outcome: Any) -> Any:
    if isinstance(outcome, Refusal):
        return outcome.status
    copy = pb.RecommendResponse()
    copy.CopyFrom(outcome)
    copy.ClearField("timings")
    # A product of many rows rounds otherwise than that of one.
    scores = [round(score, 5) for score in copy.scores]
    copy.ClearField("scores")
    return copy, scores


def alone(method: Method, metrics: Metrics, request: Any, own: Call) -> Any:
    try:
        return guard(method, Telemetry(metrics))(request, own)
    except Refusal as refusal:
        return refusal


def count(metrics: Metrics, **labels: str) -> float:
    given = {"method": "Recommend", "model": "", "version": "", **labels}
    return metrics.registry.get_sample_value("lowpass_request_duration_seconds_count", given) or 0.0


def test_together_and_alone_agree_call_by_call(method: Method, metrics: Metrics) -> None:
    asked = requests()
    calls = [call() for _ in asked]
    together = guard_many(method, Telemetry(metrics))(asked, calls)
    own = [call() for _ in asked]
    each = [alone(method, metrics, request, one) for request, one in zip(asked, own, strict=True)]
    assert [plain(outcome) for outcome in together] == [plain(outcome) for outcome in each]
    assert [(one.model, one.version) for one in calls] == [(one.model, one.version) for one in own]
    assert count(metrics, model="one", version="1", code="OK") == 2 * 21
    assert count(metrics, model="two", version="1", code="OK") == 2
    assert count(metrics, code="NOT_FOUND") == 2
    assert count(metrics, code="INVALID_ARGUMENT") == 2


def test_one_that_is_late_or_gone_does_not_harm_the_others(method: Method, metrics: Metrics) -> None:
    asked = [pb.RecommendRequest(user_id=f"user-{user}", k=3) for user in range(3)]
    late, gone, fine = guard_many(method, Telemetry(metrics))(asked, [call(-1.0), call(active=False), call()])
    assert isinstance(late, Refusal)
    assert "waited past its deadline" in late.status.message
    assert isinstance(gone, pb.RecommendResponse)
    assert isinstance(fine, pb.RecommendResponse)
    assert count(metrics, model="one", version="1", code="CANCELLED") == 1
    assert count(metrics, code="DEADLINE_EXCEEDED") == 1


def test_after_a_defect_each_is_answered_alone_and_one_fails(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: pb.RecommendRequest, _call: Call) -> pb.RecommendResponse:
        if request.user_id == "u1":
            raise KeyError("secret")
        return pb.RecommendResponse(item_ids=[request.user_id])

    def answer_many(asked: Any, calls: Any) -> Any:
        return [answer(*pair) for pair in zip(asked, calls, strict=True)]

    broken = Method("Recommend", pb.RecommendRequest, pb.RecommendResponse, answer, answer_many)
    asked = [pb.RecommendRequest(user_id=f"u{number}") for number in range(4)]
    one, two, three, late = guard_many(broken, Telemetry(metrics))(asked, [call(), call(), call(), call(-1.0)])
    assert isinstance(one, pb.RecommendResponse)
    assert isinstance(three, pb.RecommendResponse)
    assert list(three.item_ids) == ["u2"]
    assert isinstance(two, Refusal)
    assert two.status.message == "internal error"
    assert isinstance(late, Refusal)
    assert "KeyError: 'secret'" in caplog.text
    assert [count(metrics, code=code) for code in ("OK", "INTERNAL", "DEADLINE_EXCEEDED")] == [2, 1, 1]


def test_a_defect_in_the_place_of_an_answer_is_told_without_leaking(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    def answer_many(asked: Any, _calls: Any) -> Any:
        return [KeyError("secret"), *[pb.RecommendResponse() for _ in asked[1:]]]

    broken = Method("Recommend", pb.RecommendRequest, pb.RecommendResponse, lambda *_: None, answer_many)  # type: ignore[arg-type]
    one, two = guard_many(broken, Telemetry(metrics))([pb.RecommendRequest()] * 2, [call(), call()])
    assert isinstance(one, Refusal)
    assert one.status.message == "internal error"
    assert isinstance(two, pb.RecommendResponse)
    assert "KeyError: 'secret'" in caplog.text
    assert count(metrics, code="INTERNAL") == 1


def test_callers_who_have_more_time_are_not_ended_with_one_who_has_none(metrics: Metrics) -> None:
    """An engine that takes 0.3 s: who has 0.1 s is told so, and the others are answered."""

    class Slow:
        is_exact = False
        most = 60

        def __init__(self, within: Deadline | None = None) -> None:
            self._within = within
            self.num_items, self.dim = 60, 8

        def until(self, deadline: Deadline) -> Slow:
            return Slow(deadline)

        def search(self, vectors: Any, k: int) -> Any:
            left = 10.0 if self._within is None else self._within.remaining
            sleep(min(0.3, left))
            if left < 0.3:
                raise DeadlineExpired("the engine did not answer in time")
            return np.zeros((len(vectors), k), np.float32), np.tile(np.arange(k), (len(vectors), 1))

    summary, recommender = fake_model("one", "1", items=60)
    recommender._index = Slow()
    store = ModelStore()
    store.add(ServedModel(summary, recommender))
    service = RecommenderService(store, Limits(), metrics, "0")
    asked = [pb.RecommendRequest(user_id="user-1", k=3) for _ in range(3)]
    outcomes = service.recommend_many(asked, [call(10.0), call(0.1), call(10.0)])
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "RecommendResponse",
        "DeadlineExpired",
        "RecommendResponse",
    ]
    with pytest.raises(DeadlineExpired):
        service.recommend(asked[0], call(0.1))


def test_what_another_server_refused_is_refused_as_it_said(metrics: Metrics) -> None:
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="no such version there")

    def ask_another(_request: Any, _call: Call) -> Any:
        raise Refusal(status)

    method = Method("Recommend", pb.RecommendRequest, pb.RecommendResponse, ask_another)
    with pytest.raises(Refusal) as caught:
        guard(method, Telemetry(metrics))(pb.RecommendRequest(), call())
    assert caught.value.status == status
    assert count(metrics, code="NOT_FOUND") == 1
