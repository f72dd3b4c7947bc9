"""What is asked of a load generator: a stable figure, the highest rate within a limit, two servers pair by pair.

Each experiment takes `Run`, which asks for one window, so that it works on any generator. `serve.bench.comparison` is
the fourth experiment: several models, each on a server of its own.

The stability rule is that of Triton's perf_analyzer: the last three windows lie within a tenth of their mean, in
throughput and in p99.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from serve.bench.load import Asking
from serve.bench.windows import Window, one_after_another

STABLE_WINDOWS, STABLE_WITHIN = 3, 0.1
KEPT_UP = 0.95
"""A server that answers less than this share of the intended rate has been asked too much."""
SEARCH_WITHIN = 0.05
Run = Callable[[Asking], Window]


def warm_up(run: Run, asking: Asking) -> None:
    """Ask for half a window that nobody counts."""
    run(replace(asking, seconds=asking.seconds / 2))


@dataclass(frozen=True)
class Stable:
    """Windows up to the rule, or up to the bound.

    Attributes:
        window: The last three windows as one.
        windows: All of them.
        is_stable: Whether the rule was met.
    """

    window: Window
    windows: tuple[Window, ...]
    is_stable: bool


def is_stable(windows: Sequence[Window]) -> bool:
    """Whether the last three windows agree."""
    last = windows[-STABLE_WINDOWS:]
    if len(last) < STABLE_WINDOWS or any(not window.answered for window in last):
        return False
    figures = ([window.throughput for window in last], [window.at(99) for window in last])
    return all(
        max(abs(value - mean) for value in values) <= STABLE_WITHIN * mean
        for values in figures
        if (mean := statistics.fmean(values)) > 0
    )


def run_until_stable(run: Run, asking: Asking, most: int) -> Stable:
    """Warm up, then ask window after window until three agree, or `most` windows were asked."""
    warm_up(run, asking)
    windows: list[Window] = []
    while len(windows) < max(most, STABLE_WINDOWS):
        windows.append(run(replace(asking, seed=asking.seed + len(windows) + 1)))
        if is_stable(windows):
            break
    return Stable(one_after_another(windows[-STABLE_WINDOWS:]), tuple(windows), is_stable(windows))


def keeps_up(window: Window, limit: float) -> bool:
    """Whether a window of an open loop kept its rate and a p99 of `limit` milliseconds, and nothing failed."""
    return (
        not window.errors
        and window.at(99) <= limit
        and (window.intended is None or window.throughput >= KEPT_UP * window.intended)
    )


def find_rate(run: Run, seconds: float, limit: float, start: float = 100.0) -> float:
    """The highest rate that keeps up, to a twentieth; 0 where not even one request a second does.

    Args:
        run: Asks for one window.
        seconds: Length of each window.
        limit: Of the p99, milliseconds.
        start: Where to begin, requests a second.
    """

    def holds(rate: float) -> bool:
        return keeps_up(run(Asking(seconds, rate=rate)), limit)

    low, high = 0.0, start
    while holds(high):
        low, high = high, 2 * high
    while low == 0.0 and high > 1.0:
        half = high / 2
        if holds(half):
            low = half
        else:
            high = half
    while low and high - low > SEARCH_WITHIN * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Pairs:
    """Two servers asked in turn.

    Attributes:
        first: Windows of the first, one a round.
        second: Windows of the second.
    """

    first: tuple[Window, ...]
    second: tuple[Window, ...]

    def ratios(self, figure: Callable[[Window], float]) -> list[float]:
        """Second over first of a figure, one a round."""
        return [figure(second) / figure(first) for first, second in zip(self.first, self.second, strict=True)]


def run_in_pairs(first: Run, second: Run, asking: Asking, rounds: int) -> Pairs:
    """Ask two servers in turn, so that neither has the quieter machine; who goes first changes from round to round."""
    for run in (first, second):
        warm_up(run, asking)
    pairs = []
    for number in range(rounds):
        own = replace(asking, seed=asking.seed + number)
        order = (first, second) if number % 2 == 0 else (second, first)
        found = [run(own) for run in order]
        pairs.append(found if number % 2 == 0 else found[::-1])
    return Pairs(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))
