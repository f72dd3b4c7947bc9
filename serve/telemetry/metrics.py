"""Every Prometheus series of the server; the registry comes from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.telemetry.histogram import LatencyHistogram

if TYPE_CHECKING:  # The supervisor of several workers reads series, and needs no NumPy for it.
    from serve.answers.types import ModelSummary, Source

BUCKETS = tuple(float(f"{1e-5 * 1.5**power:.3g}") for power in range(35))
"""Seconds, geometric from 10 µs to 9.7 s: a quantile read from them is off by at most a factor of 1.5."""

STAGES = ("queue", "encode", "search", "filter", "total")
QUALITY = ("recall@20", "ndcg@20", "teacher_recall@20", "teacher_ndcg@20", "kept_recall")
SHADOWED = ("model", "version", "shadow_model")


class Metrics:
    """The series.

    Args:
        registry: Where they are registered; one per server.

    Attributes:
        shadow: How live and shadow models agree.
        engines: How those past this process that hold items are.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._request_duration = LatencyHistogram(
            "lowpass_request_duration_seconds",
            "From arrival until the answer or the error was ready to be sent.",
            ["method", "model", "version", "code"],
            BUCKETS,
            registry,
        )
        self._stage_duration = LatencyHistogram(
            "lowpass_stage_duration_seconds",
            "Where the time of answered requests went.",
            ["stage", "model"],
            BUCKETS,
            registry,
        )
        self._in_flight = Gauge(
            "lowpass_requests_in_flight", "Requests in work or waiting for a thread.", registry=registry
        )

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"lowpass_{name}_total", text, labels, registry=registry)

        refused = "Requests refused or given up before they were worked on."
        self._rejected = counter("requests_rejected", refused, "reason")
        self._answers = counter("answers", "Lists sent, by how they came about.", "model", "source")
        elsewhere = "Questions for users whose rows another server has: callers or a proxy send them to the wrong one."
        self._wrong_shard = counter("wrong_shard", elsewhere, "model")
        self._models = ModelSeries(registry)
        self.shadow = ShadowSeries(registry, BUCKETS)
        self.engines = EngineSeries(registry)
        self._children: dict[tuple[Counter, tuple[str, ...]], Counter] = {}

    def watch_in_flight(self, read: Callable[[], float]) -> None:
        """Read the gauge of requests in flight from `read` when scraped."""
        self._in_flight.set_function(read)

    def watch_log(self, read: Callable[[], int]) -> None:
        """Read the count of dropped log lines from `read` when scraped."""
        self.registry.register(DroppedLines("lowpass_log_lines_dropped", read))

    def watch_certificates(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Read when certificates end, in seconds since 1970 by whose they are, from `read` when scraped."""
        self.registry.register(CertificateEnds(read))

    def request(self, method: str, model: str, version: str, code: str, seconds: float, trace_id: str = "") -> None:
        """Count one finished request.

        Args:
            model: Empty for one that was not found or not reached.
            trace_id: Of the trace that is sent of it; empty for none.
        """
        labels = (method, model, version, code)
        self._request_duration.observe((labels, seconds))
        if trace_id:
            self._request_duration.exemplify(labels, seconds, trace_id)

    def stages(self, model: str, nanoseconds: tuple[int, ...]) -> None:
        """Count the stages of one answered request, in the order of `STAGES`."""
        self._stage_duration.observe(
            *[((stage, model), duration * 1e-9) for stage, duration in zip(STAGES, nanoseconds, strict=True)]
        )

    def rejected(self, reason: str) -> None:
        """Count one request that was not worked on."""
        self._count(self._rejected, reason)

    def answer(self, model: str, source: Source) -> None:
        """Count one list."""
        self._count(self._answers, model, source.value)

    def wrong_shard(self, model: str) -> None:
        """Count one question for a user of another shard."""
        self._count(self._wrong_shard, model)

    def _count(self, counter: Counter, *labels: str) -> None:
        # Kept, because labels() alone costs as much as counting.
        child = self._children.get((counter, labels))
        if child is None:
            child = self._children.setdefault((counter, labels), counter.labels(*labels))
        child.inc()

    def model_loaded(self, summary: ModelSummary, load_seconds: float) -> None:
        """Publish what is known about a loaded model."""
        self._models.publish(summary, load_seconds)

    def model_unloaded(self, summary: ModelSummary) -> None:
        """Publish it no longer."""
        self._models.withdraw(summary)

    def load_failed(self, model: str) -> None:
        """Count one load that failed."""
        self._models.count_failure(model)

    def handled(self) -> dict[str, int]:
        """Finished requests by code, over all methods and models."""
        counts: dict[str, int] = {}
        for (_, _, _, code), count in self._request_duration.totals():
            counts[code] = counts.get(code, 0) + count
        return counts


class DroppedLines(Collector):
    """Log lines that nobody took in time.

    Args:
        name: Of the family, without `_total`.
        read: How many so far.
    """

    def __init__(self, name: str, read: Callable[[], int]) -> None:
        self._name, self._read = name, read

    def collect(self) -> Iterable[Metric]:
        """The family as it is now."""
        text = "Lines of the log that were dropped, because whoever reads it takes them too slowly or no longer."
        return [CounterMetricFamily(self._name, text, value=self._read())]


class CertificateEnds(Collector):
    """When the certificates in force end.

    Args:
        read: Seconds since 1970, by whose it is.
    """

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """The family as it is now."""
        text = "When a certificate in force ends, Unix time: the server's own, or the first of those who sign clients."
        family = GaugeMetricFamily("lowpass_certificate_expiry_timestamp_seconds", text, labels=["certificate"])
        for whose, ends in self._read().items():
            family.add_metric([whose], ends)
        return [family]


class ModelSeries:
    """Gauges that describe the loaded models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"lowpass_{name}", text, ["model", "version", *labels], registry=registry)

        self._info = gauge(
            "bundle_info", "1 for each loaded bundle.", "bundle_id", "backbone", "method", "teacher", "index"
        )
        self._failures = Counter(
            "lowpass_model_load_failures_total",
            "Loads that failed; what was served before goes on.",
            ["model"],
            registry=registry,
        )
        self._load = gauge("bundle_load_seconds", "Time to open, verify, build and warm the bundle.")
        self._bytes = gauge("bundle_bytes", "Size of all files of the bundle.")
        self._quality = gauge("model_quality", "Offline quality measured at export.", "metric")
        self._index_bytes = gauge("index_bytes", "Size of the search index.")
        self._ann_recall = gauge("index_ann_recall", "Share of the exact top-k the index finds.")
        self._items = gauge("items", "Items of the catalogue.")
        self._users = gauge("users", "Users with an embedding.")

    def count_failure(self, model: str) -> None:
        """Count one load that failed."""
        self._failures.labels(model).inc()

    def publish(self, summary: ModelSummary, load_seconds: float) -> None:
        """Publish what is known about a loaded model."""
        which = (summary.name, summary.version)
        self._info.labels(*which, *_described(summary)).set(1)
        self._load.labels(*which).set(load_seconds)
        self._bytes.labels(*which).set(summary.size_bytes)
        self._failures.labels(summary.name)  # From now on at 0: of a counter that begins at 1 nobody sees the increase.
        for metric in QUALITY:
            if metric in summary.quality:
                self._quality.labels(*which, metric).set(summary.quality[metric])
        self._index_bytes.labels(*which).set(summary.index.size_bytes)
        self._ann_recall.labels(*which).set(summary.index.ann_recall)
        self._items.labels(*which).set(summary.items)
        self._users.labels(*which).set(summary.users)

    def withdraw(self, summary: ModelSummary) -> None:
        """Publish it no longer."""
        which = (summary.name, summary.version)
        self._info.remove(*which, *_described(summary))
        for metric in QUALITY:
            if metric in summary.quality:
                self._quality.remove(*which, metric)
        for gauge in (self._load, self._bytes, self._index_bytes, self._ann_recall, self._items, self._users):
            gauge.remove(*which)


def _described(summary: ModelSummary) -> tuple[str, ...]:
    return summary.bundle_id, summary.backbone, summary.method, summary.teacher, summary.index.factory


class EngineSeries:
    """How the engines are that hold items past this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._errors = Counter(
            "lowpass_index_errors_total",
            "Searches that an engine did not answer, or that were not sent because it did not.",
            ["index", "reason"],
            registry=registry,
        )
        self._breaker = Gauge(
            "lowpass_index_breaker_open",
            "1 while an engine is left alone because it kept failing.",
            ["index"],
            registry=registry,
        )

    def count(self, index: str, reason: str) -> None:
        """Count one search that was not answered."""
        self._errors.labels(index, reason).inc()

    def watch(self, index: str, is_open: Callable[[], float]) -> None:
        """Read from `is_open` when scraped whether an engine is left alone."""
        self._breaker.labels(index).set_function(is_open)


class ShadowSeries:
    """How far a live model and the one that answers its requests again agree, and what either takes."""

    def __init__(self, registry: CollectorRegistry, seconds: Sequence[float]) -> None:
        """Register the series.

        Args:
            registry: Where.
            seconds: Bounds of durations.
        """
        pair = [*SHADOWED, "shadow_version"]
        self._requests = Counter(
            "lowpass_shadow_requests_total",
            "Sampled requests: compared, shed under load, or failed.",
            [*SHADOWED, "outcome"],
            registry=registry,
        )
        self._overlap = Histogram(
            "lowpass_shadow_overlap",
            "Share of both lists that they have in common.",
            pair,
            buckets=[step / 20 for step in range(21)],
            registry=registry,
        )
        self._correlation = Histogram(
            "lowpass_shadow_rank_correlation",
            "Spearman's correlation of the ranks of what both lists hold.",
            pair,
            buckets=[step / 10 for step in range(-10, 11)],
            registry=registry,
        )
        self._seconds = Histogram(
            "lowpass_shadow_duration_seconds",
            "From question to answer, without waiting, of the live and of the shadow model.",
            [*pair, "arm"],
            buckets=seconds,
            registry=registry,
        )

    def count(self, live: ModelSummary, shadow_model: str, outcome: str) -> None:
        """Count one sampled request: "compared", "shed" or "failed"."""
        self._requests.labels(live.name, live.version, shadow_model, outcome).inc()

    def compared(
        self,
        live: ModelSummary,
        shadow: ModelSummary,
        overlap: float,
        correlation: float | None,
        live_seconds: float,
        shadow_seconds: float,
    ) -> None:
        """Count how far two lists agree, and what either took."""
        pair = (live.name, live.version, shadow.name, shadow.version)
        self._overlap.labels(*pair).observe(overlap)
        if correlation is not None:
            self._correlation.labels(*pair).observe(correlation)
        self._seconds.labels(*pair, "live").observe(live_seconds)
        self._seconds.labels(*pair, "shadow").observe(shadow_seconds)
