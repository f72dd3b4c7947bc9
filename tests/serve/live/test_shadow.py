from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from scipy.stats import spearmanr

from serve.answers.errors import InvalidRequest, ModelNotServed, UnknownUser, VersionNotServed
from serve.answers.fake import fake_model
from serve.answers.types import Answers, Query, Recommendation, Shortfall, Source
from serve.live.shadow import QUEUED_AT_MOST, Shadow, ShadowRule, overlap, rank_correlation
from serve.live.store import ModelStore, ServedModel
from serve.telemetry.metrics import Metrics

PAIR = {"model": "student", "version": "1", "shadow_model": "teacher"}


@pytest.fixture
def store() -> ModelStore:
    made = ModelStore()
    for name in ("student", "teacher"):
        made.add(ServedModel(*fake_model(name, "1")))
    return made


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def shadow(store: ModelStore, metrics: Metrics) -> Iterator[Shadow]:
    made = Shadow(store, metrics.shadow, lambda: False)
    yield made
    made.stop()


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"lowpass_shadow_{name}", {**PAIR, **labels}) or 0.0


def ask(shadow: Shadow, store: ModelStore, query: Query, times: int = 1) -> None:
    model = store.find("student")
    answers = model.recommender.recommend([query])
    answer = answers.outcomes[0]
    if not isinstance(answer, Recommendation):
        answer = Recommendation([], [], Source.POPULAR, Shortfall.EXHAUSTED)
    for _ in range(times):
        shadow.offer(model, query, answer, answers)


def test_every_sampled_request_is_compared_with_the_other_model(
    shadow: Shadow, store: ModelStore, metrics: Metrics
) -> None:
    shadow.set_rule("student", ShadowRule("teacher", "", 1.0))
    for user in range(5):
        ask(shadow, store, Query(f"user-{user}", k=5))
    shadow.stop()
    assert value(metrics, "requests_total", outcome="compared") == 5
    assert value(metrics, "overlap_sum", shadow_version="1") == 5.0
    buckets = [value(metrics, "rank_correlation_bucket", shadow_version="1", le=bound) for bound in ("0.9", "1.0")]
    assert buckets == [0, 5]
    for arm in ("live", "shadow"):
        assert value(metrics, "duration_seconds_count", shadow_version="1", arm=arm) == 5


def test_a_share_is_sampled_and_no_rule_means_none(shadow: Shadow, store: ModelStore, metrics: Metrics) -> None:
    ask(shadow, store, Query("user-1"), times=50)
    shadow.set_rule("student", ShadowRule("teacher", "1", 0.2))
    ask(shadow, store, Query("user-1"), times=1000)
    shadow.set_rule("student", None)
    ask(shadow, store, Query("user-1"), times=50)
    shadow.stop()
    counted = sum(value(metrics, "requests_total", outcome=outcome) for outcome in ("compared", "shed"))
    assert 120 < counted < 280


def test_under_load_it_is_shed_first(store: ModelStore, metrics: Metrics) -> None:
    shadow = Shadow(store, metrics.shadow, lambda: True)
    shadow.set_rule("student", ShadowRule("teacher", "", 1.0))
    ask(shadow, store, Query("user-1"), times=10)
    shadow.stop()
    assert value(metrics, "requests_total", outcome="shed") == 10
    assert value(metrics, "requests_total", outcome="compared") == 0


def test_a_slow_shadow_fills_a_short_queue_and_never_waits(store: ModelStore, metrics: Metrics) -> None:
    go_on = threading.Event()

    def wait() -> None:
        go_on.wait(10)

    shadow = Shadow(store, metrics.shadow, lambda: False, prepare_thread=wait)
    shadow.set_rule("student", ShadowRule("teacher", "", 1.0))
    ask(shadow, store, Query("user-1"), times=QUEUED_AT_MOST + 30)
    assert value(metrics, "requests_total", outcome="shed") == 30
    go_on.set()
    shadow.stop()
    assert value(metrics, "requests_total", outcome="compared") == QUEUED_AT_MOST


def test_what_the_shadow_cannot_answer_is_counted_and_harms_nobody(
    shadow: Shadow, store: ModelStore, metrics: Metrics
) -> None:
    shadow.set_rule("student", ShadowRule("teacher", "", 1.0))
    answers = Answers([UnknownUser("nobody")], 0, 0, 0)
    empty = Recommendation([], [], Source.POPULAR, Shortfall.EXHAUSTED)
    shadow.offer(store.find("student"), Query("nobody"), empty, answers)
    store.remove("teacher", "1")
    ask(shadow, store, Query("user-1"))
    give_up = time.monotonic() + 5
    while value(metrics, "requests_total", outcome="failed") < 2 and time.monotonic() < give_up:
        time.sleep(0.005)
    store.add(ServedModel(*fake_model("teacher", "1")))
    ask(shadow, store, Query("user-1"))
    shadow.stop()
    assert value(metrics, "requests_total", outcome="failed") == 2
    assert value(metrics, "requests_total", outcome="compared") == 1


def test_a_shadow_that_is_not_there_is_refused(shadow: Shadow) -> None:
    with pytest.raises(ModelNotServed):
        shadow.set_rule("nobody", None)
    with pytest.raises(ModelNotServed):
        shadow.set_rule("student", ShadowRule("nobody", "", 0.5))
    with pytest.raises(VersionNotServed):
        shadow.set_rule("student", ShadowRule("teacher", "canary", 0.5))
    with pytest.raises(InvalidRequest, match="share"):
        ShadowRule("teacher", "", 0.0)


LISTS = st.lists(st.integers(0, 12).map(str), unique=True, max_size=10)


def test_overlap_ignores_ranks_and_counts_missing_items() -> None:
    assert overlap(["a", "b", "c", "d"], ["d", "c", "x", "y"]) == 0.5
    assert overlap(["a", "b"], ["a", "b", "c", "d"]) == 0.5
    assert overlap([], []) == 1.0
    assert overlap(["a"], []) == 0.0


@given(LISTS, LISTS)
def test_correlation_is_spearmans_over_what_both_hold(first: list[str], second: list[str]) -> None:
    found = rank_correlation(first, second)
    common = [item for item in first if item in second]
    if len(common) < 2:
        assert found is None
        return
    expected = spearmanr(range(len(common)), [second.index(item) for item in common]).statistic
    assert found == pytest.approx(expected)
    assert overlap(first, second) == overlap(second, first)
