"""Which candidate to take for a budget, by rules that a reader can check, and the reasons in words.

1. A candidate fits if a bundle can hold it and it is within every limit.
2. The best of those that fit has the highest validation Recall@20.
3. Whatever the validation users cannot tell from the best is as good; of these the one with the fewest bytes an item is
   taken, and at equal bytes the one with the higher Recall@20, then the quicker one.

Test decides nothing here: it is there to be reported. Candidates are set against the teacher first
(`compare_candidates`), then one is recommended (`recommend`), explained by its numbers (`explain`), and the commands
that follow are said (`next_commands`).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from distill.errors import SettingError
from distill.evaluation.metrics import Values
from export.build.pareto import find_pareto
from export.frontier.candidates import RECALL, Candidate, Quality

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """A candidate and how it stands.

    Attributes:
        candidate: What was measured.
        kept: Share of the teacher's validation Recall@20.
        interval: 95 % confidence interval of `kept`, over users.
        kept_on_test: The same share on test, which chooses nothing; None without test items.
        pareto: Whether no other one beats it.
    """

    candidate: Candidate
    kept: float
    interval: tuple[float, float]
    kept_on_test: float | None
    pareto: bool

    @property
    def name(self) -> str:
        """Name of the candidate."""
        return self.candidate.name


def compare_candidates(candidates: Sequence[Candidate]) -> list[Row]:
    """Set every candidate against the first, which is the teacher in float32.

    Raises:
        SettingError: The teacher finds nothing that is to be found.
    """
    teacher = candidates[0].quality
    if not teacher.validation[RECALL]:
        raise SettingError(f"teacher: its validation {RECALL} is 0, so nothing can be kept of it; train it again")
    best = find_pareto([candidate.compared_with(teacher).costs for candidate in candidates])
    return [
        Row(
            candidate,
            candidate.quality.kept_of(teacher),
            ratio_interval(candidate.quality.recalls, teacher.recalls),
            _kept_on_test(candidate.quality, teacher),
            bool(pareto),
        )
        for candidate, pareto in zip(candidates, best, strict=True)
    ]


def _kept_on_test(quality: Quality, teacher: Quality) -> float | None:
    if not quality.test or not teacher.test or not teacher.test[RECALL]:
        return None
    return quality.test[RECALL] / teacher.test[RECALL]


def ratio_interval(first: Values, second: Values) -> tuple[float, float]:
    """95 % confidence interval of mean(first) / mean(second) over users drawn anew, by the delta method.

    Two models rank the same users, so their means go up and down together; the interval takes that into account
    (Cochran, "Sampling Techniques", 3rd ed. 1977, eq. 6.13).

    Args:
        first: A metric of each user, shape (B,).
        second: The same of another model, shape (B,), of mean above 0.
    """
    ratio = float(first.mean() / second.mean())
    residuals = first - ratio * second
    if len(first) < 2:
        return ratio, ratio
    error = float(residuals.std(ddof=1)) / (float(second.mean()) * np.sqrt(len(first)))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(first) - 1)) * float(error)
    return ratio - reach, ratio + reach


def are_level(first: Row, second: Row) -> bool:
    """Whether the validation users cannot tell two candidates apart in Recall@20."""
    low, high = ratio_interval(first.candidate.quality.recalls, second.candidate.quality.recalls)
    return low <= 1.0 <= high


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
            if value is not None and not value > 0:  # NaN breaks no limit, and is within none
                raise SettingError(f"{name}: {value} is not above 0")
        if not 0 <= self.min_kept < math.inf:
            raise SettingError(f"min_kept: {self.min_kept} is negative or not finite; give a share such as 0.95")

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
    """Choose a candidate by the rules above.

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


def percent(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f} %"


def milliseconds(microseconds: float) -> str:
    """Microseconds as milliseconds, two digits that count."""
    return f"{microseconds / 1000:.2g} ms" if microseconds < 10_000 else f"{microseconds / 1000:.0f} ms"


def describe_limits(limits: Limits) -> str:
    """The budget in words."""
    parts = [f"at least {percent(limits.min_kept)} of the teacher's validation Recall@20"]
    if limits.max_bytes_per_item is not None:
        parts.append(f"at most {limits.max_bytes_per_item:g} bytes an item")
    if limits.max_p99_ms is not None:
        parts.append(f"p99 at most {limits.max_p99_ms:g} ms")
    return ", ".join(parts)


def explain(found: Recommendation, rows: Sequence[Row], limits: Limits) -> list[str]:
    """Say why.

    Args:
        found: The recommendation.
        rows: All candidates, the teacher in float32 first.
        limits: The budget.
    """
    if found.chosen is None or found.best is None:
        return _explain_nothing(found.relaxations, limits)
    sentences = [
        _headline(found.chosen, rows),
        _why(found.chosen, found.best, len(found.level), rows, limits),
        *_on_test(found.chosen),
        *_distilled_or_not(found.chosen, found.undistilled),
        *_next_to(found.chosen, found),
    ]
    return sentences + _unservable(found.chosen, rows)


def _headline(chosen: Row, rows: Sequence[Row]) -> str:
    it, teacher = chosen.candidate, rows[0].candidate
    text = (
        f"Take `{chosen.name}`: {it.bytes_per_item:,} bytes an item, {it.bytes_per_user:,} a user, "
        f"{percent(chosen.kept)} of the teacher's validation Recall@20 (95 % interval {percent(chosen.interval[0])} to "
        f"{percent(chosen.interval[1])}), p50 {milliseconds(it.latency.p50)}, p99 {milliseconds(it.latency.p99)} a "
        "query."
    )
    if it.method == teacher.method and it.precision == teacher.precision:
        return f"{text} That is the teacher as it is: nothing smaller is as good within the limits."
    as_it_is = [
        row.candidate
        for row in rows
        if row.candidate.method == teacher.method and row.candidate.precision == teacher.precision
    ]
    quickest = min(as_it_is, key=lambda each: each.latency.p50)
    return (
        f"{text} The teacher as it is takes {teacher.bytes_per_item:,} bytes an item and {teacher.bytes_per_user:,} a "
        f"user; its quickest index, with {quickest.bytes_per_item:,} bytes an item, p50 "
        f"{milliseconds(quickest.latency.p50)}."
    )


def _why(chosen: Row, best: Row, num_level: int, rows: Sequence[Row], limits: Limits) -> str:
    users = len(chosen.candidate.quality.recalls)
    fitting = sum(row.candidate.servable and not limits.excesses(row) for row in rows)
    if fitting == 1:
        return f"It is the only one of {len(rows)} candidates within the limits ({describe_limits(limits)})."
    start = f"{fitting} of {len(rows)} candidates are within the limits ({describe_limits(limits)})"
    if num_level == 1:
        return f"{start}; it has the highest validation Recall@20 of them, by more than chance allows."
    among = f"{num_level - 1} other{'s' if num_level > 2 else ''}"
    if chosen is best:
        return (
            f"{start}; it has the highest validation Recall@20 of them. {users:,} users cannot tell it from {among}, "
            "but none of those takes fewer bytes an item."
        )
    return (
        f"{start}. `{best.name}` has the highest validation Recall@20 of them ({percent(best.kept)} at "
        f"{best.candidate.bytes_per_item:,} bytes an item), but {users:,} users cannot tell it from {among}, and this "
        "one is the smallest of those."
    )


def _on_test(chosen: Row) -> list[str]:
    if chosen.kept_on_test is None:
        return []
    return [f"On test, which chose nothing, it keeps {percent(chosen.kept_on_test)}."]


def _distilled_or_not(chosen: Row, undistilled: Row | None) -> list[str]:
    if not chosen.candidate.trained:
        return ["It needs no training: no student here that is as good is smaller."]
    if undistilled is None:
        return ["Nothing undistilled is as small."]
    return [
        f"The best that needs no distillation in as few bytes is `{undistilled.name}` with {percent(undistilled.kept)} "
        f"at {undistilled.candidate.bytes_per_item:,} bytes an item."
    ]


def _next_to(chosen: Row, found: Recommendation) -> list[str]:
    sentences = []
    if found.runner_up is not None:
        it = found.runner_up
        sentences.append(
            f"Runner-up: `{it.name}`, {percent(it.kept)} at {it.candidate.bytes_per_item:,} bytes an item, p99 "
            f"{milliseconds(it.candidate.latency.p99)}."
        )
    if found.next_cheaper is not None:
        it = found.next_cheaper
        sentences.append(
            f"Next cheaper: `{it.name}`, {it.candidate.bytes_per_item:,} bytes an item, {percent(it.kept)}: "
            f"{100 * (chosen.kept - it.kept):.1f} points of the teacher's Recall@20 less."
        )
    return sentences


def _unservable(chosen: Row, rows: Sequence[Row]) -> list[str]:
    better = [row for row in rows if not row.candidate.servable and row.kept > chosen.kept]
    return [
        f"`{row.name}` reads higher ({percent(row.kept)}), at {row.candidate.bytes_per_item:,} bytes an item and p50 "
        f"{milliseconds(row.candidate.latency.p50)}, but it has no embeddings, so no bundle can hold it."
        for row in better
    ]


def _explain_nothing(relaxations: Sequence[Relaxation], limits: Limits) -> list[str]:
    sentences = [f"Nothing is within the limits: {describe_limits(limits)}."]
    for relaxation in relaxations:
        options = " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in relaxation.values.items())
        it = relaxation.row
        sentences.append(
            f"`{options}` would admit `{it.name}`: {percent(it.kept)} at {it.candidate.bytes_per_item:,} bytes an "
            f"item, p99 {milliseconds(it.candidate.latency.p99)}."
        )
    return sentences


def next_commands(found: Recommendation, out: Path) -> list[str]:
    """What to run to serve the recommended candidate."""
    if found.chosen is None:
        return []
    model = "student" if found.chosen.candidate.trained else "small"
    return [
        f"lowpass export {shlex.quote(str(out))} --repository models --model {model} --seen all",
        "lowpass serve --repository models",
    ]
