"""The recommendation in words, computed from the numbers, and the commands that follow it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from export.frontier.comparison import Row
from export.frontier.recommendation import Limits, Recommendation, Relaxation


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
        f"lowpass publish {shlex.quote(str(out))} --repository models --model {model} --seen all",
        "lowpass serve --repository models",
    ]
