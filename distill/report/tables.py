"""Every table, built once: as Markdown for a terminal, and as the cells that the page's template turns into HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from distill.evaluation.comparison import SHOWN
from distill.evaluation.metrics import overlap
from distill.evaluation.significance import PairedTest
from distill.graph.analysis import Analysis
from distill.report.material import CUTOFF, METRIC, Curve, Frontier, FrontierPoint, Group, Lists, Material

NOTHING = "–"
LEVEL = 0.05
"""Probability of a false alarm among all pairs together."""
MAX_TIMES = 6
SETTINGS_PARTS = {"method_settings", "training"}
"""Of a run's settings; the names in them stand for themselves."""
NO_SETTINGS = {"seed", "teacher", "teacher_fingerprint"}
"""Seeds have their own table, and which teacher it was is said at the top."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        emphasis: "best", "better", "worse", or "" for a plain one.
        share: Length of a bar behind the text, in [0, 1]; None for none.
        hint: Shown when the pointer rests on it.
        colour: Number of a group's colour, shown as a swatch; None for none.
        link: Where the text leads, relative to the page; "" for nowhere.
    """

    text: str
    emphasis: str = ""
    share: float | None = None
    hint: str = ""
    colour: int | None = None
    link: str = ""


Row = Sequence[Cell | str]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: Above it.
        header: One entry a column.
        rows: As many cells each; text stands for a plain cell.
        words: Columns, from the left, that hold words and not numbers.
        fold: Whether it is folded away at first.
        stacks: Whether on a narrow screen each row becomes a list of its cells: for long words, that nobody compares.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Row]
    words: int = 1
    fold: bool = False
    stacks: bool = False
    kind: str = field(default="table", init=False)


def render_markdown(table: Table) -> str:
    """The table in Markdown, padded so that a terminal shows it well; numbers stand on the right."""
    rows = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]
    sides = ["left"] * table.words + ["right"] * (len(table.header) - table.words)
    return tabulate(rows, table.header, tablefmt="pipe", disable_numparse=True, colalign=sides)


def render_comparison(rows: Sequence[Mapping[str, Any]], blends: Sequence[Mapping[str, Any]] = ()) -> str:
    """Rows of `compare_runs`, and of `compare_blends`, in Markdown."""
    return render_markdown(tabulate_runs(rows, blends=blends))


def render_analysis(analysis: Analysis) -> str:
    """An analysis as two tables in Markdown: a line a run, then a line a group."""
    return "\n\n".join(map(render_markdown, (tabulate_students(analysis), tabulate_groups(analysis))))


def mean_and_spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean ± sample standard deviation; the mean alone of a single value, a dash of none."""
    if not values:
        return NOTHING
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def tabulate_runs(
    rows: Sequence[Mapping[str, Any]],
    groups: Sequence[Group] = (),
    whole: float | None = None,
    caption: str = "",
    blends: Sequence[Mapping[str, Any]] = (),
) -> Table:
    """Quality side by side, a line a setting, then a line a blend that taught.

    Args:
        rows: From `distill.evaluation.comparison.compare_runs`.
        groups: Name and colour each row; with them comes the share kept of the teacher. Labels name rows without.
        whole: The teacher's test Recall@20, or None.
        caption: Above it.
        blends: From `distill.report.blends.compare_blends`.
    """
    columns = [f"{split} {metric}" for split in ("validation", "test") for metric in SHOWN]
    students = [row for row, group in zip(rows, groups, strict=True) if not group.is_teacher] if groups else rows
    best = {name: max((row[name]["mean"] for row in students if name in row), default=0.0) for name in columns}
    table: list[Row] = []
    names = [Cell(group.name, colour=group.colour) for group in groups] or [row["label"] for row in rows]
    for name, row in zip([*names, *(row["label"] for row in blends)], [*rows, *blends], strict=True):
        cells: list[Cell | str] = [name, _number_or_nothing(row["dim"]), str(len(row["seeds"]) or NOTHING)]
        cells += [_quality(row.get(column), len(row["seeds"]), best[column]) for column in columns]
        cells += [_kept(row.get(f"test {METRIC}"), whole)] if groups else []
        table.append([*cells, *(_number_or_nothing(row[column]) for column in ("epochs", "seconds"))])
    header = ["run", "d", "seeds", *columns, *(["kept"] if groups else []), "best epoch", "training s"]
    return Table(caption, header, table)


def _number_or_nothing(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"


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


def tabulate_differences(groups: Sequence[Group], tests: Sequence[PairedTest]) -> Table:
    """A matrix of groups: the row's Recall@20 less the column's, coloured where it is more than chance."""
    found: dict[tuple[str, str], Cell] = {}
    for test in tests:
        found[test.first, test.second] = _difference(test, 1)
        found[test.second, test.first] = _difference(test, -1)
    rows = [
        [name, *(found.get((group.name, other.name), Cell("")) for other in groups)]
        for name, group in zip(_number(groups), groups, strict=True)
    ]
    caption = f"{METRIC} of the row less that of the column, in hundredths; coloured where corrected p < {LEVEL}"
    return Table(caption, ["", *(str(number) for number in range(1, len(groups) + 1))], rows)


def _number(groups: Sequence[Group]) -> list[Cell]:
    return [Cell(f"{number}  {group.name}", colour=group.colour) for number, group in enumerate(groups, start=1)]


def _difference(test: PairedTest, sign: int) -> Cell:
    value, ends = sign * test.difference, sorted((sign * test.low, sign * test.high))
    told_apart = test.corrected < LEVEL and value != 0
    emphasis = ("better" if value > 0 else "worse") if told_apart else ""
    hint = f"95 % interval {_signed(ends[0])} to {_signed(ends[1])}, corrected p {_p(test.corrected)}"
    return Cell(_signed(value), emphasis, hint=hint)


def tabulate_pairs(tests: Sequence[PairedTest]) -> Table:
    """The numbers behind the matrix, a line a pair."""
    rows = [
        [
            test.first,
            test.second,
            _signed(test.difference),
            f"{_signed(test.low)} to {_signed(test.high)}",
            _p(test.p_value),
            _p(test.corrected),
        ]
        for test in tests
    ]
    header = ["first", "second", "first less second", "95 % interval", "p", "corrected p"]
    return Table(f"All pairs, in hundredths of {METRIC}", header, rows, words=2, fold=True)


def _signed(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", "−")


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def tabulate_learning(groups: Sequence[Group], curves: Mapping[Path, Curve]) -> Table:
    """The best validation quality that each group reached within some training times."""
    times = choose_times(list(curves.values()))
    reached = {group.name: [_reached(group, curves, time) for time in times] for group in groups}
    students = [reached[group.name] for group in groups if not group.is_teacher]
    best = [max((np.mean(each[row]) for each in students if each[row]), default=None) for row in range(len(times))]
    rows: list[Row] = []
    for group in groups:
        row: list[Cell | str] = [Cell(group.name, colour=group.colour)]
        for values, top in zip(reached[group.name], best, strict=True):
            is_best = bool(values) and not group.is_teacher and np.mean(values) == top
            row.append(Cell(mean_and_spread(values), "best" if is_best else ""))
        rows.append(row)
    caption = f"Best validation {METRIC} within a training time; a run that ended earlier keeps its best"
    return Table(caption, ["run", *(f"{time:.3g} s" for time in times)], rows)


def choose_times(curves: Sequence[Curve]) -> list[float]:
    """Round training times, from when something can be compared to when the last run ended."""
    first = min(float(curve.seconds[0]) for curve in curves)
    last = max(float(curve.seconds[-1]) for curve in curves)
    steps = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
        for digit in (1, 2, 5)
    ]
    return [*[step for step in steps if first <= step < last][-MAX_TIMES + 1 :], last]


def _reached(group: Group, curves: Mapping[Path, Curve], time: float) -> list[float]:
    """What each run of a group had reached; nothing where one of them had not been evaluated yet."""
    own = [curves[run.path].best_within(time) for run in group.runs if run.path in curves]
    known = [value for value in own if value is not None]
    return known if len(known) == len(own) else []


def tabulate_students(analysis: Analysis, names: Sequence[Cell] = ()) -> Table:
    """What each student kept over all frequencies together; named as in the analysis unless `names` are given."""
    rows: list[Row] = []
    for number, student in enumerate(analysis.students):
        quality = NOTHING if student.quality is None else f"{student.quality:.4f}"
        kept = f"{analysis.kept_in_all(student):.1%}"
        name = names[number] if names else student.name
        rows.append([name, str(student.dim), quality, f"{student.losses.sum():.4g}", kept])
    header = ["run", "d", f"test {METRIC}", "loss", "kept"]
    return Table("All frequencies together", header, rows)


def tabulate_groups(analysis: Analysis) -> Table:
    """What each student kept in each knowledge group."""
    header = ["frequency", "share of frequencies", "of the teacher's energy"]
    header += [f"{student.name} keeps" for student in analysis.students]
    columns = [values / values.sum() for values in (analysis.groups.counts, analysis.teacher_energies)]
    columns += [analysis.kept(student) for student in analysis.students]
    rows = [
        [f"{low:.3f}–{high:.3f}", *(NOTHING if math.isnan(share) else f"{share:.4f}" for share in shares)]
        for (low, high), shares in zip(analysis.groups.bounds, np.column_stack(columns), strict=True)
    ]
    return Table("Group by group", header, rows)


def tabulate_popularity(material: Material, lists: Mapping[Path, Lists]) -> Table:
    """Popularity and coverage of what is recommended, and how much of the teacher's choice is repeated."""
    names = (f"Popularity@{CUTOFF}", f"Coverage@{CUTOFF}")
    teacher = material.teacher.metrics.get("test", {}) if material.teacher is not None else {}
    rows: list[Row] = []
    for group in material.groups:
        reports = [run.metrics["test"] for run in group.runs if "test" in run.metrics]
        cells: list[Cell | str] = [Cell(group.name, colour=group.colour)]
        for name, digits in zip(names, (1, 4), strict=True):
            values = [report[name] for report in reports if name in report]
            ratio = f"{np.mean(values) / teacher[name]:.2f}×" if values and teacher.get(name) else NOTHING
            cells += [mean_and_spread(values, digits), ratio]
        rows.append([*cells, _shared_with_teacher(material, group, lists)])
    shared = f"of the teacher's top {CUTOFF}"
    header = ["run", names[0], "of the teacher's", names[1], "of the teacher's", shared]
    return Table("Users with test items, mean ± standard deviation over seeds", header, rows)


def _shared_with_teacher(material: Material, group: Group, lists: Mapping[Path, Lists]) -> str:
    if material.teacher is None or not lists:
        return NOTHING
    chosen = lists[material.teacher.path].items
    return mean_and_spread([float(overlap(lists[run.path].items, chosen).mean()) for run in group.runs], 3)


def tabulate_frontier(frontier: Frontier, colours: Mapping[str, int], numbers: Mapping[str, str]) -> list[Table]:
    """The points that the figure numbers, and folded away the others.

    Args:
        frontier: What was measured.
        colours: Method → number of its colour.
        numbers: Name of a point → its number in the figure.
    """
    shown = {*numbers, frontier.recommended}
    rows = {point.name: _describe(point, frontier, colours, numbers) for point in frontier.points}
    first = [row for name, row in rows.items() if name in shown]
    others = [row for name, row in rows.items() if name not in shown]
    header = [
        "candidate", "", "kept", "95 % interval", "kept on test", "bytes an item", "bytes a user", "p50 µs", "p99 µs",
        "taught by", "training s", "within limits",
    ]  # fmt: skip
    tables = [Table("Candidates that no other one beats, and the recommended one", header, first)]
    if others:
        tables.append(Table(f"The other {len(others)} candidates", header, others, fold=True))
    return tables


def _describe(point: FrontierPoint, frontier: Frontier, colours: Mapping[str, int], numbers: Mapping[str, str]) -> Row:
    low, high = point.kept_interval
    return [
        Cell(point.name, "best" if point.name == frontier.recommended else "", colour=colours[point.method]),
        numbers.get(point.name, ""),
        Cell(f"{point.kept:.1%}", share=min(max(point.kept, 0.0), 1.0)),
        f"{low:.1%} to {high:.1%}",
        NOTHING if point.kept_on_test is None else f"{point.kept_on_test:.1%}",
        f"{point.bytes_per_item:,.0f}",
        f"{point.bytes_per_user:,.0f}",
        f"{point.p50_us:,.0f}",
        f"{point.p99_us:,.0f}",
        point.taught_by or NOTHING,
        NOTHING if point.training_seconds is None else f"{point.training_seconds:,.0f}",
        "yes" if point.fits else "no",
    ]


def tabulate_settings(groups: Sequence[Group]) -> list[Table]:
    """Name and seeds of each group, and a column a group with the settings in which they differ."""
    flat = [flatten_settings(group.runs[0].config) for group in groups]
    names = dict.fromkeys(name for settings in flat for name in settings)
    apart = [name for name in names if name not in NO_SETTINGS and len({settings.get(name) for settings in flat}) > 1]
    key: list[Row] = [
        [name, ", ".join(str(run.config.get("seed", NOTHING)) for run in group.runs)]
        for name, group in zip(_number(groups), groups, strict=True)
    ]
    tables = [Table("Lines of this page", ["run", "seeds"], key, words=2)]
    if apart:
        rows = [[name, *(settings.get(name, NOTHING) for settings in flat)] for name in apart]
        header = ["setting", *(str(number) for number in range(1, len(flat) + 1))]
        tables.append(Table("What sets them apart", header, rows, words=len(header)))
    return tables


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as name → text; those of a part are "part.name", but for `SETTINGS_PARTS`."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flatten_settings(value, prefix if name in SETTINGS_PARTS else f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return found
