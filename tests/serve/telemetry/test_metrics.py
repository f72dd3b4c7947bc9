from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from serve.answers.fake import fake_model
from serve.answers.types import Source
from serve.telemetry.metrics import BUCKETS, LatencyHistogram, Metrics


def test_buckets_are_geometric_from_ten_microseconds() -> None:
    assert BUCKETS[0] == 1e-5
    assert 9 < BUCKETS[-1] < 11
    ratios = [after / before for before, after in pairwise(BUCKETS)]
    assert max(ratios) < 1.52
    assert min(ratios) > 1.48
    assert sum(bound < 1e-3 for bound in BUCKETS) >= 10


def test_registries_are_apart() -> None:
    first, second = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    first.rejected("overloaded")
    name, labels = "lowpass_requests_rejected_total", {"reason": "overloaded"}
    assert first.registry.get_sample_value(name, labels) == 1
    assert second.registry.get_sample_value(name, labels) is None


def test_counts_requests_stages_and_sources() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.request("Recommend", "m", "1", "OK", 0.002)
    metrics.request("Recommend", "m", "1", "OK", 0.004)
    metrics.request("Recommend", "", "", "NOT_FOUND", 0.001)
    metrics.stages("m", (1_000, 20_000, 300_000, 4_000, 500_000))
    metrics.answer("m", Source.POPULAR)
    assert metrics.handled() == {"OK": 2, "NOT_FOUND": 1}
    value = metrics.registry.get_sample_value
    labels = {"method": "Recommend", "model": "m", "version": "1", "code": "OK"}
    assert value("lowpass_request_duration_seconds_sum", labels) == pytest.approx(0.006)
    assert value("lowpass_request_duration_seconds_bucket", {**labels, "le": str(BUCKETS[14])}) == 1
    assert value("lowpass_stage_duration_seconds_sum", {"stage": "search", "model": "m"}) == pytest.approx(3e-4)
    assert value("lowpass_answers_total", {"model": "m", "source": "popular"}) == 1


def test_in_flight_is_read_when_scraped() -> None:
    metrics, current = Metrics(CollectorRegistry()), [0]
    metrics.watch_in_flight(lambda: current[0])
    current[0] = 3
    assert metrics.registry.get_sample_value("lowpass_requests_in_flight") == 3


def test_a_model_without_quality_has_no_quality_series() -> None:
    metrics = Metrics(CollectorRegistry())
    summary, _ = fake_model("m", "1")
    metrics.model_loaded(summary, 0.5)
    value, which = metrics.registry.get_sample_value, {"model": "m", "version": "1"}
    assert value("lowpass_bundle_load_seconds", which) == 0.5
    assert value("lowpass_model_quality", {**which, "metric": "recall@20"}) == 1.0
    assert value("lowpass_model_quality", {**which, "metric": "kept_recall"}) is None


BOUNDS = (0.001, 0.0025, 1.0)
durations = st.floats(0, 4) | st.sampled_from(BOUNDS)


def own(registry: CollectorRegistry) -> LatencyHistogram:
    return LatencyHistogram("took_seconds", "How long.", ["method", "code"], BOUNDS, registry)


@given(st.lists(st.tuples(st.sampled_from(["a", 'with "quotes"']), durations), min_size=1, max_size=20))
def test_exposes_what_the_library_exposes(observed: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = own(ours)
    library = Histogram("took_seconds", "How long.", ["method", "code"], buckets=BOUNDS, registry=theirs)
    for method, seconds in observed:
        histogram.observe(((method, "OK"), seconds))
        library.labels(method, "OK").observe(seconds)
    for text in (generate_latest, generate_openmetrics):
        expected = [line for line in text(theirs).decode().splitlines() if "_created" not in line]
        assert text(ours).decode().splitlines() == expected


def test_several_observations_at_once_and_their_totals() -> None:
    histogram = own(CollectorRegistry())
    histogram.observe((("a", "OK"), 0.5), (("a", "OK"), 2.0), (("b", "OK"), 0.0))
    assert dict(histogram.totals()) == {("a", "OK"): 2, ("b", "OK"): 1}


def test_threads_lose_nothing() -> None:
    registry = CollectorRegistry()
    histogram = own(registry)

    def observe() -> None:
        for _ in range(5000):
            histogram.observe((("a", "OK"), 0.002))

    threads = [threading.Thread(target=observe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = {"method": "a", "code": "OK"}
    assert registry.get_sample_value("took_seconds_count", labels) == 40_000
    assert registry.get_sample_value("took_seconds_bucket", {**labels, "le": "0.0025"}) == 40_000
