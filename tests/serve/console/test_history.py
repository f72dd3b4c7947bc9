from __future__ import annotations

from math import inf

import pytest
from prometheus_client import CollectorRegistry, Histogram

from serve.console.history import History, Series, as_columns, grown, moment, quantile
from serve.telemetry.metrics import Metrics
from tests.kits.transport_bench import eventually


def test_a_quantile_is_prometheus_own() -> None:
    buckets = {1.0: 0.0, 2.0: 50.0, 4.0: 90.0, inf: 100.0}
    assert quantile(0.25, buckets) == pytest.approx(1.5)
    assert quantile(0.7, buckets) == pytest.approx(3.0)
    assert quantile(0.99, buckets) == 4.0
    assert quantile(0.5, {1.0: 0.0, inf: 0.0}) is None
    assert quantile(0.5, {}) is None


def test_a_counter_that_began_anew_has_grown_by_all_it_has() -> None:
    before: Series = {("a_total", (("worker", "0"),)): 100.0, ("a_total", (("worker", "1"),)): 7.0}
    now: Series = {("a_total", (("worker", "0"),)): 3.0, ("a_total", (("worker", "1"),)): 9.0, ("b_total", ()): 1.0}
    assert list(grown(before, now).values()) == [3.0, 2.0, 1.0]


def test_a_moment_has_rates_and_times_of_traffic_alone() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.request("Recommend", "student", "1", "OK", 0.5)
    history = History(metrics.registry)
    before = history.read()
    for _ in range(8):
        metrics.request("Recommend", "student", "1", "OK", 0.001)
    metrics.request("SimilarItems", "teacher", "1", "OK", 0.1)
    metrics.request("Recommend", "", "", "RESOURCE_EXHAUSTED", 0.0)
    metrics.request("Recommend", "student", "1", "INTERNAL", 0.2)
    metrics.request("ListModels", "", "", "OK", 3.0)
    found = moment(before, history.read(), 2.0, 1_000.0)
    assert (found.rate, found.failed, found.refused) == (5.5, 0.5, 0.5)
    assert found.p50 == pytest.approx(0.001, rel=0.5)
    assert found.p99 == pytest.approx(0.1, rel=0.5)
    assert found.models["student"]["rate"] == 4.0
    assert found.models["student"]["p99"] == pytest.approx(0.001, rel=0.5)
    assert found.memory > 1e6
    quiet = moment(history.read(), history.read(), 2.0, 1_002.0)
    assert (quiet.rate, quiet.p50, quiet.p99, quiet.shadows) == (0.0, None, None, {})


def test_a_shadow_has_its_overlap() -> None:
    registry = CollectorRegistry()
    pair = ["model", "version", "shadow_model", "shadow_version"]
    overlap = Histogram("lowpass_shadow_overlap", "", pair, registry=registry, buckets=(0.5, 1.0))
    history = History(registry)
    before = history.read()
    for share in (0.4, 0.8):
        overlap.labels("student", "2", "teacher", "1").observe(share)
    (name, found), *rest = moment(before, history.read(), 1.0, 0.0).shadows.items()
    assert (name, rest) == ("student:2 teacher:1", [])
    assert found == {"overlap": pytest.approx(0.6), "compared": 2}


def test_the_latest_moments_are_kept() -> None:
    metrics = Metrics(CollectorRegistry())
    history = History(metrics.registry, period=0.01, kept=3)
    history.start()
    eventually(lambda: len(history.moments) == 3)
    metrics.request("Recommend", "student", "1", "OK", 0.001)
    eventually(lambda: any(each.rate for each in history.moments))
    history.stop()
    columns = as_columns(history.moments)
    assert len(columns["at"]) == len(columns["p99"]) == 3
    assert columns["at"] == sorted(columns["at"])
