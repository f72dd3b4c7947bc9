from __future__ import annotations

from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from serve.answers.fake import fake_model
from serve.answers.types import Source
from serve.telemetry.metrics import BUCKETS, Metrics


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
    assert value("lowpass_bundle_bytes", which) == summary.size_bytes > 0
    assert value("lowpass_model_quality", {**which, "metric": "recall@20"}) == 1.0
    assert value("lowpass_model_quality", {**which, "metric": "kept_recall"}) is None


def test_failed_loads_of_a_model_count_from_zero_so_that_prometheus_sees_the_first() -> None:
    metrics = Metrics(CollectorRegistry())
    summary, _ = fake_model("m", "1")
    metrics.model_loaded(summary, 0.5)
    value = metrics.registry.get_sample_value
    assert value("lowpass_model_load_failures_total", {"model": "m"}) == 0
    metrics.load_failed("m")
    assert value("lowpass_model_load_failures_total", {"model": "m"}) == 1


def test_certificates_are_read_when_scraped() -> None:
    metrics, ends = Metrics(CollectorRegistry()), {"server": 1e9}
    metrics.watch_certificates(lambda: ends)
    ends["server"] = 2e9
    name = "lowpass_certificate_expiry_timestamp_seconds"
    assert metrics.registry.get_sample_value(name, {"certificate": "server"}) == 2e9
