"""Which candidate to take for a budget, by rules that a reader can check.

1. A candidate fits if a bundle can hold it and it is within every limit.
2. The best of those that fit has the highest validation Recall@20.
3. Whatever the validation users cannot tell from the best is as good; of these the one with the fewest bytes an item is
   taken, and at equal bytes the one with the higher Recall@20, then the quicker one.

Test decides nothing here: it is there to be reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distill.errors import SettingError
from export.frontier.comparison import Row, are_level
from export.frontier.measuring import RECALL

Level = Callable[[Row, Row], bool]


@dataclass(frozen=True)
class Limits:
    """What must hold of what is served.

    Attributes:
        max_bytes_per_item: Of the index, or None.
        max_p99_ms: Of a single query's search, milliseconds, or None.
        min_kept: Share of the teacher's validation Recall@20.
    """

    max_bytes_per_item: float | None = None
    max_p99_ms: float | None = None
    min_kept: float = 0.95

    def __post_init__(self) -> None:
        for name in ("max_bytes_per_item", "max_p99_ms"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SettingError(f"{name}: {value} is not above 0")
        if self.min_kept < 0:
            raise SettingError(f"min_kept: {self.min_kept} is negative; give a share such as 0.95")

    def excesses(self, row: Row) -> dict[str, float]:
        """Limit → by what factor it is broken, for each one that is; empty for a row that is within all."""
        candidate = row.candidate
        factors = {"min_kept": self.min_kept / row.kept if row.kept > 0 else math.inf}
        if self.max_bytes_per_item is not None:
            factors["max_bytes_per_item"] = candidate.bytes_per_item / self.max_bytes_per_item
        if self.max_p99_ms is not None:
            factors["max_p99_ms"] = candidate.latency.p99 / 1000 / self.max_p99_ms
        return {name: factor for name, factor in factors.items() if factor > 1}


@dataclass(frozen=True)
class Relaxation:
    """What to give up so that something fits.

    Attributes:
        values: Limit → the value that admits `row`; as few limits as can be.
        row: What would fit then.
    """

    values: dict[str, float]
    row: Row


@dataclass(frozen=True)
class Recommendation:
    """The choice and what stands around it.

    Attributes:
        chosen: None where nothing fits.
        best: Highest validation Recall@20 of those that fit.
        level: Those that fit and cannot be told from the best, the best among them; highest Recall@20 first.
        runner_up: What the same rules would take without `chosen`.
        next_cheaper: The highest Recall@20 at fewer bytes an item, whatever it keeps.
        undistilled: The highest Recall@20 of what is not trained, at no more bytes an item.
        relaxations: Where nothing fits, what would, the smallest step first.
    """

    chosen: Row | None
    best: Row | None = None
    level: tuple[Row, ...] = ()
    runner_up: Row | None = None
    next_cheaper: Row | None = None
    undistilled: Row | None = None
    relaxations: tuple[Relaxation, ...] = field(default=())


def recommend(rows: Sequence[Row], limits: Limits, level: Level = are_level) -> Recommendation:
    """Choose a candidate.

    Args:
        rows: All candidates.
        limits: The budget.
        level: Whether two rows cannot be told apart.
    """
    servable = [row for row in rows if row.candidate.servable]
    fitting = [row for row in servable if not limits.excesses(row)]
    if not fitting:
        return Recommendation(None, relaxations=_relaxations(servable, limits))
    best, alike, chosen = _choose(fitting, level)
    others = [row for row in fitting if row is not chosen]
    cheaper = [row for row in servable if row.candidate.bytes_per_item < chosen.candidate.bytes_per_item]
    untrained = [
        row
        for row in servable
        if not row.candidate.trained
        and row is not chosen
        and row.candidate.bytes_per_item <= chosen.candidate.bytes_per_item
    ]
    return Recommendation(
        chosen,
        best,
        alike,
        _choose(others, level)[2] if others else None,
        max(cheaper, key=_recall, default=None),
        max(untrained, key=_recall, default=None),
    )


def _choose(fitting: Sequence[Row], level: Level) -> tuple[Row, tuple[Row, ...], Row]:
    best = max(fitting, key=_recall)
    alike = sorted((row for row in fitting if row is best or level(row, best)), key=_recall, reverse=True)
    return best, tuple(alike), min(alike, key=_cost)


def _recall(row: Row) -> float:
    return row.candidate.quality.validation[RECALL]


def _cost(row: Row) -> tuple[float, float, float]:
    return row.candidate.bytes_per_item, -_recall(row), row.candidate.latency.p50


def _relaxations(servable: Sequence[Row], limits: Limits) -> tuple[Relaxation, ...]:
    """For each limit, what admits something if it alone gives way; where none alone does, the nearest row's limits."""
    broken = [(row, limits.excesses(row)) for row in servable]
    alone: dict[str, tuple[float, Row]] = {}
    for row, excess in broken:
        if len(excess) == 1:
            name, factor = next(iter(excess.items()))
            if name not in alone or factor < alone[name][0]:
                alone[name] = (factor, row)
    if alone:
        found = sorted(alone.items(), key=lambda item: item[1][0])
        return tuple(Relaxation({name: _value(name, row)}, row) for name, (_, row) in found)
    nearest, excess = min(broken, key=lambda pair: sum(math.log(factor) for factor in pair[1].values()))
    return (Relaxation({name: _value(name, nearest) for name in excess}, nearest),)


def _value(limit: str, row: Row) -> float:
    """The limit that just admits the row, rounded to its safe side."""
    candidate = row.candidate
    if limit == "max_bytes_per_item":
        return candidate.bytes_per_item
    if limit == "max_p99_ms":
        return math.ceil(candidate.latency.p99) / 1000
    return math.floor(row.kept * 1000) / 1000
