"""The latest half hour of the server's own series, so that whoever opens the page sees what led to now.

Counters are read every few seconds and only what they grew by is kept. Each series is compared with itself, so that a
worker that was started again, whose counters begin anew, makes no other's growth disappear.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import inf
from time import monotonic, time
from typing import Any

from prometheus_client import CollectorRegistry

LOG = logging.getLogger("lowpass.serve")
PERIOD, KEPT = 5.0, 360
"""Seconds between two looks, and how many are kept: half an hour."""
REQUESTS = "lowpass_request_duration_seconds"
OVERLAP = "lowpass_shadow_overlap"
ASKED = frozenset({"Recommend", "BatchRecommend", "StreamRecommend", "SimilarItems"})
"""Methods that count as traffic; looking at what is served does not."""
FAILED = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS"})
REFUSED = frozenset({"RESOURCE_EXHAUSTED", "UNAUTHENTICATED"})
WATCHED = (
    REQUESTS,
    "lowpass_requests_in_flight",
    OVERLAP,
    "lowpass_index_breaker_open",
    "lowpass_worker_up",
    "lowpass_log_lines_dropped",
    "process_resident_memory_bytes",
    "process_cpu_seconds",
)
"""Families, without the endings of their samples."""

Labels = tuple[tuple[str, str], ...]
Series = dict[tuple[str, Labels], float]
"""Sample → value."""


@dataclass(frozen=True)
class Moment:
    """What happened between two looks.

    Args:
        at: When it ended, in seconds since 1970.
        rate: Answers and refusals a second.
        failed: Of these, those that failed on the server's side, a second.
        refused: Those that were not let in, a second.
        p50: Median time of the answers in seconds; None where there was none. So the next.
        in_flight: Requests in work or waiting.
        memory: Resident bytes of the process, or of all of them.
        cpu: Cores in use.
        models: Model → {rate, p50, p99} of its answers.
        shadows: "live shadow" → {overlap, compared}: mean overlap of the compared lists, and how many.
    """

    at: float
    rate: float
    failed: float
    refused: float
    p50: float | None
    p99: float | None
    in_flight: float
    memory: float
    cpu: float
    models: dict[str, dict[str, float | None]] = field(default_factory=dict)
    shadows: dict[str, dict[str, float]] = field(default_factory=dict)


class History:
    """Looks at a registry every few seconds, on a thread of its own.

    Args:
        registry: Of one server, or of all workers, whose samples have a label more.
        period: Seconds between two looks.
        kept: How many are kept.
    """

    def __init__(self, registry: CollectorRegistry, period: float = PERIOD, kept: int = KEPT) -> None:
        self._registry = registry
        self.period = period
        self._moments: deque[Moment] = deque(maxlen=kept)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def moments(self) -> list[Moment]:
        """From the earliest to the latest."""
        return list(self._moments)

    def read(self) -> Series:
        """The watched series as they are now."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self._registry.collect()
            if family.name in WATCHED
            for sample in family.samples
        }

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._look, name="lowpass-console", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        before, since = self.read(), monotonic()
        while not self._stopping.wait(self.period):
            try:
                now = self.read()
            except Exception:  # of a collector; the next look may succeed
                LOG.exception("defect in the series")
                continue
            self._moments.append(moment(before, now, monotonic() - since, time()))
            before, since = now, monotonic()


def grown(before: Series, now: Series) -> Series:
    """By how much each counter has grown; one that has begun anew, by all it has."""
    return {key: value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value for key, value in now.items()}


def moment(before: Series, now: Series, seconds: float, at: float) -> Moment:
    """What happened between two looks.

    Args:
        seconds: Between them.
        at: Seconds since 1970.
    """
    counts: dict[str, float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    growth = grown(before, now)
    for (name, labels), more in growth.items():
        about = dict(labels)
        if about.get("method") not in ASKED:
            continue
        if name == f"{REQUESTS}_count":
            counts[about["code"]] += more
        elif name == f"{REQUESTS}_bucket" and about["code"] == "OK":
            for whose in ("", about["model"]):
                buckets[whose][float(about["le"])] += more
    return Moment(
        at=at,
        rate=sum(counts.values()) / seconds,
        failed=sum(count for code, count in counts.items() if code in FAILED) / seconds,
        refused=sum(count for code, count in counts.items() if code in REFUSED) / seconds,
        p50=quantile(0.5, buckets[""]),
        p99=quantile(0.99, buckets[""]),
        in_flight=total(now, "lowpass_requests_in_flight"),
        memory=total(now, "process_resident_memory_bytes"),
        cpu=total(growth, "process_cpu_seconds_total") / seconds,
        models={name: _pace(found, seconds) for name, found in buckets.items() if name},
        shadows=_shadows(growth),
    )


def _pace(buckets: Mapping[float, float], seconds: float) -> dict[str, float | None]:
    return {"rate": buckets[inf] / seconds, "p50": quantile(0.5, buckets), "p99": quantile(0.99, buckets)}


def _shadows(growth: Series) -> dict[str, dict[str, float]]:
    overlaps: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (name, labels), more in growth.items():
        if name.startswith(OVERLAP):
            about = dict(labels)
            pair = f"{about['model']}:{about['version']} {about['shadow_model']}:{about['shadow_version']}"
            overlaps[pair][name.removeprefix(OVERLAP)] += more
    return {
        pair: {"overlap": each["_sum"] / each["_count"], "compared": each["_count"]}
        for pair, each in overlaps.items()
        if each["_count"]
    }


def total(series: Series, name: str) -> float:
    """The sum of a sample over all its labels."""
    return sum(value for (found, _), value in series.items() if found == name)


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """A quantile of a histogram, as Prometheus's `histogram_quantile` interpolates it; None where nothing was counted.

    Args:
        share: In (0, 1).
        buckets: Upper bound → how many are at most as large; +Inf is one of the bounds.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted = share * buckets[bounds[-1]]
    for low, high in pairwise([0.0, *bounds]):
        reached = buckets.get(low, 0.0)
        if buckets[high] >= wanted:
            return low if high == inf else low + (high - low) * (wanted - reached) / ((buckets[high] - reached) or 1.0)
    return bounds[-1]


def as_columns(moments: list[Moment]) -> dict[str, list[Any]]:
    """Moments as one list a field, rounded to four digits: what the page draws."""
    rows = [asdict(each) for each in moments]
    return {name: [_rounded(row[name]) for row in rows] for name in Moment.__dataclass_fields__}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.10g}" if abs(value) > 1e6 else f"{value:.4g}") if isinstance(value, float) else value
