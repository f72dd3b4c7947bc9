"""Prometheus series about models: what is loaded, and how a shadow agrees with it."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serve.answers.types import ModelSummary

QUALITY = ("recall@20", "ndcg@20", "teacher_recall@20", "teacher_ndcg@20", "kept_recall")
SHADOWED = ("model", "version", "shadow_model")


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
        for gauge in (self._load, self._index_bytes, self._ann_recall, self._items, self._users):
            gauge.remove(*which)


def _described(summary: ModelSummary) -> tuple[str, ...]:
    return summary.bundle_id, summary.backbone, summary.method, summary.teacher, summary.index.factory


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
