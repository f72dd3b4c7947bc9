"""How the runs learned: validation quality by epoch and by training time, and who is ahead at equal time."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from distill.report.material import Group, Material
from distill.report.section import Cell, Chart, LeftOut, Section, Table, mean_and_spread
from distill.report.svg import colour, dash, page_style, plain_numbers, render
from distill.run import HISTORY_FILE, Run

METRIC = "Recall@20"
TITLE = "Learning"
CLOCKS = ("processor_seconds", "seconds")
"""Columns of a history that tell time, the better one first: a busy machine stretches the other."""
MAX_TIMES = 6
SHORTEST = 1e-3
"""Seconds are written to the millisecond, and a logarithmic axis has no place for 0."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """The history of one run, one entry an evaluation.

    Attributes:
        epochs: Shape (n,).
        seconds: Training time, evaluation left out, shape (n,).
        values: Validation Recall@20, mean over all users, shape (n,).
    """

    epochs: Values
    seconds: Values
    values: Values

    def best_within(self, seconds: float) -> float | None:
        """The best value reached within a training time; a run that ended earlier keeps its best."""
        reached = self.values[self.seconds <= seconds]
        return float(reached.max()) if len(reached) else None


def read_histories(runs: list[Run]) -> tuple[list[Curve | None], str]:
    """The curve of each run, None where it has no history, and the clock that all of them have."""
    rows = [_read(run) for run in runs]
    clock = next((name for name in CLOCKS if all(name in table[0] for table in rows if table)), CLOCKS[-1])
    return [_curve(table, clock) if table else None for table in rows], clock


def _read(run: Run) -> list[dict[str, str]]:
    path = run.path / HISTORY_FILE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _curve(rows: list[dict[str, str]], clock: str) -> Curve:
    epochs, seconds, values = (np.array([float(row[name]) for row in rows]) for name in ("epoch", clock, METRIC))
    return Curve(epochs, np.maximum(seconds, SHORTEST), values)


def build_learning(material: Material) -> Section | LeftOut:
    """Curves, and the table at equal training time."""
    found, clock = read_histories(material.runs)
    curves = {run.path: curve for run, curve in zip(material.runs, found, strict=True) if curve is not None}
    if not curves:
        return LeftOut(TITLE, f"give runs that were trained here: these have no {HISTORY_FILE}")
    time = "processor time" if clock == CLOCKS[0] else "wall-clock time"
    lead = (
        f"Validation {METRIC}, mean over all users, at every evaluation; a line is a run. Training time is {time}, "
        "evaluation left out."
    )
    return Section("learning", TITLE, lead, [_draw(material, curves, time), _tabulate(material, curves)])


def choose_times(curves: list[Curve]) -> list[float]:
    """Round training times, from when something can be compared to when the last run ended."""
    first = min(float(curve.seconds[0]) for curve in curves)
    last = max(float(curve.seconds[-1]) for curve in curves)
    steps = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
        for digit in (1, 2, 5)
    ]
    return [*[step for step in steps if first <= step < last][-MAX_TIMES + 1 :], last]


def _tabulate(material: Material, curves: dict[Path, Curve]) -> Table:
    times = choose_times(list(curves.values()))
    reached = {group.name: [_reached(group, curves, time) for time in times] for group in material.groups}
    students = [reached[group.name] for group in material.groups if not group.is_teacher]
    best = [
        max((np.mean(values) for values in column if values), default=None) for column in zip(*students, strict=True)
    ]
    rows: list[list[Cell | str]] = []
    for group in material.groups:
        row: list[Cell | str] = [Cell(group.name, colour=group.colour)]
        for values, top in zip(reached[group.name], best or [None] * len(times), strict=True):
            is_best = bool(values) and not group.is_teacher and np.mean(values) == top
            row.append(Cell(mean_and_spread(values), "best" if is_best else ""))
        rows.append(row)
    caption = f"Best validation {METRIC} within a training time; a run that ended earlier keeps its best"
    return Table(caption, ["run", *(f"{time:.3g} s" for time in times)], rows)


def _reached(group: Group, curves: dict[Path, Curve], time: float) -> list[float]:
    """What each run of a group had reached; nothing where one of them had not been evaluated yet."""
    own = [curves[run.path].best_within(time) for run in group.runs if run.path in curves]
    known = [value for value in own if value is not None]
    return known if len(known) == len(own) else []


def _draw(material: Material, curves: dict[Path, Curve], time: str) -> Chart:
    with page_style():
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        by_epoch, by_time = figure.subplots(1, 2, sharey=True)
        for group in material.groups:
            style = {"color": colour(group.colour), "linestyle": dash(group.colour), "linewidth": 1.2}
            for curve in (curves[run.path] for run in group.runs if run.path in curves):
                by_epoch.plot(curve.epochs, curve.values, **style)
                by_time.plot(curve.seconds, curve.values, **style)
        by_epoch.set(xlabel="epoch", ylabel=f"validation {METRIC}")
        by_time.set(xlabel=f"{time}, s", xscale="log")
        plain_numbers(by_time)
        svg = render(figure, "curves", f"Validation {METRIC} against epochs and against training time")
    drawn = [group for group in material.groups if any(run.path in curves for run in group.runs)]
    return Chart(svg, "By epoch, and by training time (logarithmic).", [(group.name, group.colour) for group in drawn])
