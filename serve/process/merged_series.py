"""The series of all workers on one endpoint, each with a label `worker`.

A label, not a sum: the counters of a restarted worker begin anew at 0, and Prometheus's `rate` understands that of each
series by itself, while a sum that falls by one worker's share would look like a reset of all. A worker that has died is
asked no more and so counts no more; nothing is kept on disk. Over all workers it is `sum without (worker) (…)`, and for
quantiles `histogram_quantile(0.99, sum by (le) (rate(…_bucket[5m])))`, which holds for a single process as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from time import monotonic

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serve.process.worker import Worker

ANSWER_WITHIN = 3.0
"""Longest wait for the series of a worker, in seconds; Prometheus gives up after 10 unless told otherwise."""
LABEL = "worker"
DIED, HUNG = "died", "hung"
REASONS = (DIED, HUNG)


@dataclass(frozen=True)
class WorkerState:
    """What is known of the worker in one place.

    Args:
        worker: Serving; None where none does at the moment.
        restarts: How often one was started again here, by reason.
    """

    worker: Worker | None
    restarts: Mapping[str, int]


class MergedSeries(Collector):
    """Asks the workers when it is asked itself; one that does not answer in time is left out and counts as not up.

    Args:
        states: The workers now, in the order of their numbers.
        answer_within: Longest wait for all of them, in seconds.
    """

    def __init__(self, states: Callable[[], Sequence[WorkerState]], answer_within: float = ANSWER_WITHIN) -> None:
        self._states = states
        self._answer_within = answer_within
        self._lock = Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: what there is, the workers say."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Every family of every worker, and which workers are up."""
        with self._lock:
            states = list(self._states())
            give_up = monotonic() + self._answer_within
            for state in states:
                if state.worker is not None:
                    state.worker.ask_series()
            texts = [state.worker.series(give_up) if state.worker is not None else None for state in states]
        up = GaugeMetricFamily("lowpass_worker_up", "1 for each worker that serves and answered.", labels=[LABEL])
        restarts = CounterMetricFamily(
            "lowpass_worker_restarts",
            "How often a worker was started again, after it had died or since it hung.",
            labels=[LABEL, "reason"],
        )
        for number, (state, text) in enumerate(zip(states, texts, strict=True)):
            up.add_metric([str(number)], float(text is not None))
            for reason in REASONS:
                restarts.add_metric([str(number), reason], state.restarts.get(reason, 0))
        return [up, restarts, *merge(texts)]


def merge(texts: Sequence[str | None]) -> list[Metric]:
    """One family of each name, whose samples say in the label `worker` whose they are.

    Args:
        texts: Of each worker, in Prometheus's text format; None for one that said nothing.
    """
    families: dict[str, Metric] = {}
    for number, text in enumerate(texts):
        for family in text_string_to_metric_families(text or ""):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.add_sample(sample.name, {LABEL: str(number), **sample.labels}, sample.value)
    return list(families.values())
