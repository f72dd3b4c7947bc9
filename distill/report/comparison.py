"""Quality side by side, and whether differences are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distill.evaluation.comparison import SHOWN, compare_runs
from distill.evaluation.significance import PairedTest, average_seeds, compare_pairs
from distill.report.material import Group, Material
from distill.report.recommendations import Lists
from distill.report.section import NOTHING, Cell, LeftOut, Section, Table

METRIC = "Recall@20"
LEVEL = 0.05
"""Probability of a false alarm among all pairs together."""
CONVENTIONS = {
    "with-relevant": "mean over users with relevant items",
    "all": "mean over all users, zeros for those without relevant items",
}
SUFFIX = {"with-relevant": "", "all": "_all_users"}


def build_comparison(material: Material) -> Section:
    """One table a convention of averaging."""
    lead = (
        "The whole catalogue is ranked for every user, training items left out. Runs that differ only in their seed "
        "make one line: mean ± standard deviation over seeds. Validation is for choosing, test only reports. Bold is "
        "the best student; kept is the share of the teacher's test Recall@20."
    )
    return Section("comparison", "Quality", lead, [_compare(material, average) for average in CONVENTIONS])


def _compare(material: Material, average: str) -> Table:
    columns = [f"{split} {metric}" for split in ("validation", "test") for metric in SHOWN]
    rows = compare_runs(material.runs, average=average)
    students = [row for group, row in zip(material.groups, rows, strict=True) if not group.is_teacher]
    best = {column: max((row[column]["mean"] for row in students if column in row), default=0.0) for column in columns}
    whole = teacher_quality(material, average)
    table = []
    for group, row in zip(material.groups, rows, strict=True):
        cells: list[Cell | str] = [Cell(group.name, colour=group.colour), str(row["dim"]), str(len(row["seeds"]))]
        cells += [_quality(row.get(column), len(row["seeds"]), best[column]) for column in columns]
        cells.append(_kept(row.get(f"test {METRIC}"), whole))
        cells += [f"{row['epochs']:g}", f"{row['seconds']:g}"]
        table.append(cells)
    header = ["run", "d", "seeds", *columns, "kept", "best epoch", "training s"]
    return Table(CONVENTIONS[average].capitalize(), header, table)


def teacher_quality(material: Material, average: str = "with-relevant") -> float | None:
    """Test Recall@20 of the teacher itself."""
    if material.teacher is None:
        return None
    report: Mapping[str, float] = material.teacher.metrics.get("test" + SUFFIX[average], {})
    return report.get(METRIC)


def _quality(value: Mapping[str, float] | None, seeds: int, best: float) -> Cell:
    if value is None:
        return Cell(NOTHING)
    text = f"{value['mean']:.4f}" + (f" ± {value['std']:.4f}" if seeds > 1 else "")
    return Cell(text, "best" if value["mean"] == best else "")


def _kept(test: Mapping[str, float] | None, whole: float | None) -> Cell:
    if test is None or not whole:
        return Cell(NOTHING)
    share = test["mean"] / whole
    return Cell(f"{share:.1%}", share=min(share, 1.0))


def build_significance(material: Material, lists: Mapping[Path, Lists]) -> Section | LeftOut:
    """Every pair of groups, tested user by user.

    Args:
        material: Its groups.
        lists: Run directory → what it recommends; empty without data.
    """
    title = "Are the differences more than chance?"
    if not lists:
        return LeftOut(title, "give --data, so that users can be compared one by one")
    if len(material.groups) < 2:
        return LeftOut(title, "give runs with different settings")
    per_user = {group.name: average_seeds([lists[run.path].recall for run in group.runs]) for group in material.groups}
    tests = compare_pairs(per_user)
    users = len(next(iter(per_user.values())))
    lead = (
        f"Test {METRIC} of each of {users:,} users with relevant items, averaged over seeds first; Student's paired "
        f"t over users, Holm's correction over all {len(tests)} pairs. It says what other users would show of these "
        "trained models, not what other seeds would."
    )
    return Section("significance", title, lead, [_matrix(material.groups, tests), _list_pairs(tests)])


def _matrix(groups: Sequence[Group], tests: Sequence[PairedTest]) -> Table:
    found: dict[tuple[str, str], Cell] = {}
    for test in tests:
        found[test.first, test.second] = _difference(test, 1)
        found[test.second, test.first] = _difference(test, -1)
    rows = [
        [
            Cell(f"{number}  {group.name}", colour=group.colour),
            *(found.get((group.name, other.name), Cell("")) for other in groups),
        ]
        for number, group in enumerate(groups, start=1)
    ]
    caption = f"{METRIC} of the row less that of the column, in hundredths; coloured where corrected p < {LEVEL}"
    return Table(caption, ["", *(str(number) for number in range(1, len(groups) + 1))], rows)


def _difference(test: PairedTest, sign: int) -> Cell:
    value, ends = sign * test.difference, sorted((sign * test.low, sign * test.high))
    told_apart = test.corrected < LEVEL and value != 0
    emphasis = ("better" if value > 0 else "worse") if told_apart else ""
    hint = f"95 % interval {_signed(100 * ends[0])} to {_signed(100 * ends[1])}, corrected p {_p(test.corrected)}"
    return Cell(_signed(100 * value), emphasis, hint=hint)


def _list_pairs(tests: Sequence[PairedTest]) -> Table:
    rows = [
        [
            test.first,
            test.second,
            _signed(100 * test.difference),
            f"{_signed(100 * test.low)} to {_signed(100 * test.high)}",
            _p(test.p_value),
            _p(test.corrected),
        ]
        for test in tests
    ]
    header = ["first", "second", "first less second", "95 % interval", "p", "corrected p"]
    return Table("All pairs, in hundredths of Recall@20", header, rows, words=2, fold=True)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def build_summary(material: Material) -> list[tuple[str, str, str]]:
    """The few numbers that open the page: a heading, the number, and what it is."""
    cards: list[tuple[str, str, str]] = []
    whole = teacher_quality(material)
    if material.teacher is not None and whole is not None:
        cards.append(("teacher", f"{whole:.4f}", f"test {METRIC} at d = {material.teacher.dim}"))
    students = [group for group in material.groups if not group.is_teacher]
    scored = [(_mean(group, "validation"), group) for group in students]
    known = [(value, group) for value, group in scored if value is not None]
    if not known:
        return cards
    _, best = max(known, key=lambda pair: pair[0])
    reached = _mean(best, "test")
    if reached is not None:
        cards.append(("best on validation", f"{reached:.4f}", f"test {METRIC}: {best.name}"))
        if whole and material.teacher is not None:
            dims = material.teacher.dim, best.runs[0].dim
            cards.append(("kept", f"{reached / whole:.1%}", f"of the teacher's test {METRIC}"))
            cards.append(("smaller", f"{dims[0] / dims[1]:.3g}×", f"d = {dims[1]} instead of {dims[0]}"))
    return cards


def _mean(group: Group, split: str) -> float | None:
    values = [run.metrics[split][METRIC] for run in group.runs if split in run.metrics]
    return float(np.mean(values)) if values else None
