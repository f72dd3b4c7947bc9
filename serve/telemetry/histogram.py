"""A histogram of durations that is cheap to count into, with traces as exemplars of its buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf
from threading import Lock
from time import time
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Exemplar, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class LatencyHistogram(Collector):
    """A histogram family of durations that costs the query path a bisection; thread-safe.

    prometheus_client's own walks its buckets in Python and takes two locks an observation, which for six durations is a
    quarter of the whole query path. This one exposes the same family through the library's interface for collectors
    (https://prometheus.github.io/client_python/collector/custom/).

    Args:
        labels: Names of its labels.
        buckets: Upper bounds in seconds, rising; +Inf is added.
        registry: Where it is registered.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, tuple(labels)
        self._bounds = tuple(buckets)
        self._bound_names: list[str] = [floatToGoString(bound) for bound in (*buckets, inf)]  # type: ignore[no-untyped-call]
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        self._examples: dict[Labels, dict[int, Exemplar]] = {}
        self._lock = Lock()
        registry.register(self)

    def observe(self, *observations: tuple[Labels, float]) -> None:
        """Count durations, all under one lock.

        Args:
            observations: Label values, and seconds.
        """
        with self._lock:
            for labels, seconds in observations:
                counts = self._counts.get(labels)
                if counts is None:
                    counts = self._counts[labels] = [0] * len(self._bound_names)
                    self._sums[labels] = 0.0
                counts[bisect_left(self._bounds, seconds)] += 1
                self._sums[labels] += seconds

    def exemplify(self, labels: Labels, seconds: float, trace_id: str) -> None:
        """Let a duration that was counted stand for its bucket, by the trace that shows where its time went.

        Who asks for OpenMetrics gets it, the latest of each bucket
        (https://prometheus.io/docs/specs/om/open_metrics_spec/#exemplars); the older text format has no place for it.
        """
        example = Exemplar({"trace_id": trace_id}, seconds, time())
        with self._lock:
            self._examples.setdefault(labels, {})[bisect_left(self._bounds, seconds)] = example

    def totals(self) -> Iterator[tuple[Labels, int]]:
        """Label values, and how many were counted."""
        with self._lock:
            found = [(labels, sum(counts)) for labels, counts in self._counts.items()]
        return iter(found)

    def describe(self) -> Iterable[Metric]:
        """The family without samples, so that registering it reads nothing."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """The family as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        with self._lock:
            series = [
                (labels, list(counts), self._sums[labels], dict(self._examples.get(labels, {})))
                for labels, counts in self._counts.items()
            ]
        for labels, counts, total, examples in series:
            cumulative = enumerate(zip(self._bound_names, accumulate(counts), strict=True))
            buckets: list[Any] = [
                (*bucket, examples[place]) if place in examples else bucket for place, bucket in cumulative
            ]
            family.add_metric(labels, buckets=buckets, sum_value=total)
        return [family]
