"""A window: what was seen in one stretch of load, as arrays, and the figures read from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb

Milliseconds = npt.NDArray[np.float64]
STAGES = ("queue", "encode", "search", "filter", "total")
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Window:
    """What was seen in one stretch of load.

    Attributes:
        latencies: Of answered requests, shape (n,).
        late: How long after its moment each was sent, shape (n,); zeros in a closed loop.
        stages: The server's own split of each answer, microseconds, shape (n, 5), in the order of `STAGES`.
        seconds: Its length.
        errors: Failed requests by status code; these have no latency.
        load_busy: Share of one core a generating process used, on average over the processes; near 1, the throughput is
            the generator's and not the server's.
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

    def stage(self, name: str) -> float:
        """Median of one of the server's `STAGES`, microseconds."""
        return percentile(self.stages[:, STAGES.index(name)], 50)


def percentile(values: npt.NDArray[Any] | Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `share` % of the values do not exceed.

    It is always a value that was observed.

    Args:
        values: Shape (n,), n >= 1.
        share: From 0 to 100.
    """
    return float(np.percentile(np.asarray(values), share, method="inverted_cdf"))


def read_stages(answers: Sequence[bytes]) -> npt.NDArray[np.float64]:
    """Microseconds of each serialized answer's stages, shape (n, 5), in the order of `STAGES`."""
    timings = (pb.RecommendResponse.FromString(answer).timings for answer in answers)
    rows = [[getattr(timing, f"{stage}_us") for stage in STAGES] for timing in timings]
    return np.array(rows, dtype=np.float64).reshape(-1, len(STAGES))


def side_by_side(windows: Sequence[Window]) -> Window:
    """What several processes saw at the same time, as one."""
    rates = [window.intended for window in windows if window.intended is not None]
    merged = _merge(windows, max(window.seconds for window in windows))
    return replace(merged, intended=sum(rates) if rates else None)


def one_after_another(windows: Sequence[Window]) -> Window:
    """Windows that followed one another, as one."""
    return _merge(windows, sum(window.seconds for window in windows))


def _merge(windows: Sequence[Window], seconds: float) -> Window:
    errors: Counter[str] = Counter()
    for window in windows:
        errors.update(window.errors)
    return Window(
        np.concatenate([window.latencies for window in windows]),
        np.concatenate([window.late for window in windows]),
        np.concatenate([window.stages for window in windows]),
        seconds,
        dict(errors),
        float(np.mean([window.load_busy for window in windows])),
        windows[0].intended,
    )
