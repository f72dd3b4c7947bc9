"""A stretch of load in arrays, and what it says in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serve.bench.closed_loop import Samples
from serve.bench.summary import STAGES, percentile, read_stages

Milliseconds = npt.NDArray[np.float64]
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Window:
    """What was seen in one stretch of load.

    Attributes:
        latencies: Of answered requests, shape (n,).
        late: How long after its moment each was sent, shape (n,); zeros in a closed loop.
        stages: The server's own split of each answer, microseconds, shape (n, 5), in the order of `STAGES`.
        seconds: Its length.
        errors: Failed requests by status code.
        load_busy: Share of one core a generating process used, on average over the processes.
        intended: Requests a second that were meant to be sent; None in a closed loop.
    """

    latencies: Milliseconds
    late: Milliseconds
    stages: npt.NDArray[np.float64]
    seconds: float
    errors: dict[str, int] = field(default_factory=dict)
    load_busy: float = 0.0
    intended: float | None = None

    @property
    def answered(self) -> int:
        """Requests answered."""
        return len(self.latencies)

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    def at(self, share: float) -> float:
        """A percentile of the latency, milliseconds; infinite where nothing was answered."""
        return percentile(self.latencies, share) if self.answered else float("inf")

    def goodput(self, limit: float) -> float:
        """Answers a second within `limit` milliseconds."""
        return float(np.count_nonzero(self.latencies <= limit)) / self.seconds


def window_of(samples: Samples, late_ns: Sequence[int] = (), intended: float | None = None) -> Window:
    """Samples of one process as arrays."""
    latencies = np.asarray(samples.latencies_ns, dtype=np.float64) / 1e6
    late = np.asarray(late_ns, dtype=np.float64) / 1e6 if len(late_ns) else np.zeros(len(latencies))
    stages = read_stages(samples.answers) if samples.answers else np.empty((0, len(STAGES)))
    busy = samples.load_cpu_seconds / samples.seconds
    return Window(latencies, late, stages, samples.seconds, dict(samples.errors), busy, intended)


def side_by_side(windows: Sequence[Window]) -> Window:
    """What several processes saw at the same time, as one."""
    return _merge(windows, max(window.seconds for window in windows))


def one_after_another(windows: Sequence[Window]) -> Window:
    """Windows that followed one another, as one."""
    merged = _merge(windows, sum(window.seconds for window in windows))
    intended = windows[0].intended
    return Window(
        merged.latencies, merged.late, merged.stages, merged.seconds, merged.errors, merged.load_busy, intended
    )


def _merge(windows: Sequence[Window], seconds: float) -> Window:
    errors: dict[str, int] = {}
    for window in windows:
        for code, count in window.errors.items():
            errors[code] = errors.get(code, 0) + count
    rates = [window.intended for window in windows if window.intended is not None]
    return Window(
        np.concatenate([window.latencies for window in windows]),
        np.concatenate([window.late for window in windows]),
        np.concatenate([window.stages for window in windows]),
        seconds,
        errors,
        float(np.mean([window.load_busy for window in windows])),
        sum(rates) if rates else None,
    )
