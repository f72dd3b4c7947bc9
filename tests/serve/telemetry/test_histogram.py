from __future__ import annotations

import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from serve.telemetry.histogram import LatencyHistogram

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


def test_the_latest_trace_of_a_bucket_is_its_exemplar_for_who_asks_for_openmetrics() -> None:
    registry = CollectorRegistry()
    histogram = own(registry)
    labels = ("a", "OK")
    for seconds, trace_id in ((0.002, "aa"), (0.0021, "bb"), (5.0, "cc")):
        histogram.observe((labels, seconds))
        histogram.exemplify(labels, seconds, trace_id)
    histogram.observe((labels, 0.5))
    assert "trace_id" not in generate_latest(registry).decode()
    read: Any = text_string_to_metric_families
    written: Any = generate_openmetrics
    (family,) = read(written(registry).decode())
    found = {each.labels["le"]: each.exemplar for each in family.samples if each.exemplar is not None}
    assert {bound: (each.labels["trace_id"], each.value) for bound, each in found.items()} == {
        "0.0025": ("bb", 0.0021),
        "+Inf": ("cc", 5.0),
    }
