"""The histogram against prometheus_client's own, observation by observation."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from serve.telemetry.metrics import LatencyHistogram

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
