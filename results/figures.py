"""The picture of a study, from its cells: quality against size, and against training time.

Its PNG and SVG are the same at every rendering of the same cells: no date, no random ids.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from distill.report.figures.frontier import DOT_RADIUS, Spot, place_labels
from distill.report.figures.style import (
    INK,
    LEVEL,
    MUTED,
    NO_METADATA,
    WIDTH,
    colour,
    encode_png,
    in_style,
    plain_numbers,
)
from results.ablation import ABLATIONS
from results.cells import BLEND_SECONDS, EQUAL_TIMES, INT8, TEACHER, TEST, VALIDATION, Cell, Cells, Row, within
from results.kept import kept_shares, rows_of
from results.plan import Plan, Study
from results.standing import standing_cells

NAMED = {
    TEACHER: "teacher",
    "recipe": "the recipe",
    "ce+rcekd": "ce+rcekd",
    "ce": "ce",
    "rcekd": "RCE-KD",
    "freqd": "FreqD",
    "scratch": "student, not taught",
    "svd": "SVD of the teacher",
    "teacher-pq": "teacher, quantised (PQ)",
    "teacher-float16": "teacher, float16",
    "teacher-int8": "teacher, int8",
    "ials": "iALS",
}
"""What is drawn in a colour of its own → its label; its number is its colour."""
UNTAUGHT = ("svd", "teacher-pq", "teacher-float16", "teacher-int8", "ials")
"""Item vectors of no student and of no teacher."""
NO_VECTORS = {"ease": "EASE", "gfcf": "GF-CF", "turbocf": "Turbo-CF", "itemknn": "ItemKNN"}
"""Baselines that have no item vectors, so no bytes an item, a level → its label."""
BELOW = 0.1
"""How far below the lowest end the lines of trainings are drawn."""
NUM_TIMES = 12
"""Of a line's points."""
FLOAT32, BYTE, BUILT = "o", "^", "D"


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour: points that a line joins.

    Attributes:
        name: A contestant, an untrained model or the teacher.
        label: Beside its last point; empty for none.
        points: (x, share of the teacher's), from left to right.
        marker: Matplotlib's.
        dots: How many of the last points are dots; the others are the line alone.
    """

    name: str
    label: str
    points: tuple[Spot, ...]
    marker: str = FLOAT32
    dots: int | None = None


def series_of_size(plan: Plan, study: Study, cells: Cells) -> list[Series]:
    """Shares of the teacher's test Recall@20 by bytes an item: students in both precisions, and what is not taught."""
    teacher = cells[Cell(study, TEACHER).name]
    found = [Series(TEACHER, f"teacher, {teacher['settings']['dim']} numbers", ((teacher["bytes_per_item"], 1.0),))]
    for name in UNTAUGHT:
        rows = [row for dim in study.contestants_by_dim for row in rows_of(plan, study, name, dim, cells)]
        sized = [row for row in rows if row["bytes_per_item"] is not None]
        points = tuple(sorted((row["bytes_per_item"], row[TEST] / teacher[TEST]) for row in sized))
        found += [Series(name, NAMED[name], points, BUILT)] if points else []
    for name, label in NAMED.items():
        by_dim = {dim: rows_of(plan, study, name, dim, cells) for dim in study.contestants_by_dim}
        by_dim = {dim: rows for dim, rows in sorted(by_dim.items()) if rows and rows[0]["trial"] is not None}
        if by_dim:
            wide = tuple((4.0 * dim, float(kept_shares(rows, teacher)[:, 0].mean())) for dim, rows in by_dim.items())
            narrow = tuple((float(dim), _mean(rows, INT8) / teacher[TEST]) for dim, rows in by_dim.items())
            found += [Series(name, label, wide), Series(name, f"{label}, int8", narrow, BYTE)]
    return found


def series_of_time(plan: Plan, study: Study, cells: Cells) -> list[Series]:
    """Shares of the teacher's validation Recall@20 by processor seconds of training, of all that is trained.

    A line leads over what was reached on the way to the end; who has no colour of its own has only the end. What a
    blend cost is counted, what the teacher cost is not.
    """
    teacher = cells[Cell(study, TEACHER).name]
    rows = {TEACHER: [teacher], **{name: rows_of(plan, study, name, study.dim, cells) for name in study.contestants}}
    return [
        Series(
            name,
            NAMED.get(name, "" if name in ABLATIONS else name),
            _curve(own, teacher)[0 if name in NAMED else -1 :],
            dots=1,
        )
        for name, own in sorted(rows.items(), key=lambda entry: entry[0] not in NAMED)
        if own
    ]


def _curve(rows: list[Row], teacher: Row) -> tuple[Spot, ...]:
    end, blend = _mean(rows, "processor_seconds"), rows[0][BLEND_SECONDS] or 0.0
    early = [spot for spot in _way(rows) if 0 < spot[0] < end and spot[1] > 0]
    spots = [*early, (end, _mean(rows, VALIDATION))]
    return tuple((time + blend, recall / teacher[VALIDATION]) for time, recall in spots)


def _way(rows: list[Row]) -> list[Spot]:
    """Times and what was reached by then, mean over seeds: of the curves, or at equal times for rows without one."""
    curves = [np.array([point for point in row["curve"] if point[0] > 0]) for row in rows if row["curve"]]
    if len(curves) < len(rows) or any(len(curve) < 2 for curve in curves):
        return [(float(time), _mean(rows, within(time))) for time in EQUAL_TIMES]
    first, last = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
    times = np.geomspace(first, last, NUM_TIMES) if first < last else np.array([first])
    reached = np.mean([np.interp(np.log(times), np.log(curve[:, 0]), curve[:, 1]) for curve in curves], axis=0)
    return [(float(time), float(recall)) for time, recall in zip(times, reached, strict=True)]


def _mean(rows: list[Row], column: str) -> float:
    return float(np.mean([row[column] for row in rows]))


def levels_of(study: Study, cells: Cells) -> dict[str, float]:
    """Shares of the teacher's test Recall@20 that models without item vectors reach, by label."""
    teacher = cells[Cell(study, TEACHER).name]
    rows = {name: cells.get(Cell(study, name, study.dim).name) for name in NO_VECTORS if name in study.untrained}
    return {NO_VECTORS[name]: row[TEST] / teacher[TEST] for name, row in rows.items() if row is not None}


def pictured(plan: Plan, cells: Cells) -> list[Study]:
    """Studies that have a picture: those of the plan's that are to have one, as soon as their teacher is there."""
    return [study for study in plan.studies if study.pictured and Cell(study, TEACHER).name in cells]


def picture_paths(study: Study, folder: Path) -> tuple[Path, Path]:
    """Where the PNG and the SVG are, below the folder of results."""
    path = folder / "figures" / study.file_name
    return path.with_suffix(".png"), path.with_suffix(".svg")


def caption_of(study: Study) -> str:
    """Say what the picture shows."""
    dims = ", ".join(map(str, sorted(study.contestants_by_dim)))
    return (
        f"On {study.name}. *Left:* test quality by the size of an item. Dots are students of {dims} numbers "
        "in float32, triangles the same at a byte a number, diamonds what is not taught: the teacher made small, and "
        "iALS; dashed levels have no item vectors. *Right:* validation quality by the time of training, the teacher's "
        "not counted in that of its students, that of co-teachers is; a line passes what was reached on the way. Small "
        "dots are the other contestants, those without a name the recipe's ablations. Each at its best trial, mean "
        "over seeds."
    )


def render_figures(plan: Plan, cells: Cells, folder: Path) -> dict[Path, bytes]:
    """Encode the pictures as PNG and SVG.

    Returns:
        Path → content.
    """
    cells, _ = standing_cells(plan, cells)
    drawn: dict[Path, bytes] = {}
    for study in pictured(plan, cells):
        figure = draw_quality(plan, study, cells)
        content = io.StringIO()
        with in_style():
            figure.savefig(content, format="svg", metadata=NO_METADATA)
        png, svg = picture_paths(study, folder)
        lines = "\n".join(line.rstrip() for line in content.getvalue().splitlines())
        drawn |= {png: encode_png(figure), svg: f"{lines}\n".encode()}
    return drawn


@in_style()
def draw_quality(plan: Plan, study: Study, cells: Cells) -> Figure:
    """Draw both panels."""
    size, time = series_of_size(plan, study, cells), series_of_time(plan, study, cells)
    figure = Figure(figsize=(WIDTH, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.set(xlabel="bytes an item (logarithmic)", ylabel="share of the teacher's test Recall@20")
    right.set(xlabel="processor seconds of training (logarithmic)", ylabel="share of its validation Recall@20")
    for axes, series in ((left, size), (right, time)):
        axes.set_xscale("log")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.axhline(1.0, color=INK, linewidth=1, linestyle=LEVEL, zorder=1)
        for one in series:
            _draw(axes, one)
        axes.margins(x=0.08, y=0.06)
    right.set_ylim(bottom=min(one.points[-1][1] for one in time) - BELOW)
    _draw_levels(left, levels_of(study, cells))
    for axes in (left, right):
        plain_numbers(axes)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, series in ((left, size), (right, time)):
        _name(axes, series)
    return figure


def _shade(name: str) -> str:
    if name.startswith(TEACHER):
        return INK
    return colour(list(NAMED).index(name)) if name in NAMED else MUTED


def _draw(axes: Axes, series: Series) -> None:
    xs, ys = zip(*series.points, strict=True)
    shade, count = _shade(series.name), len(xs) if series.dots is None else series.dots
    is_named = series.name in NAMED
    axes.plot(xs, ys, color=shade, linewidth=1, alpha=0.6, zorder=2)
    axes.plot(xs[-count:], ys[-count:], linestyle="", marker=series.marker, color=shade,
              markersize=7 if is_named else 4, zorder=4 if is_named else 3)  # fmt: skip


def _draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    for number, (name, share) in enumerate(levels.items()):
        axes.axhline(share, color=MUTED, linewidth=0.8, linestyle=LEVEL, zorder=1)
        axes.annotate(name, (0.99 - 0.13 * number, share), (0, 1), color=MUTED, fontsize=7, va="bottom", ha="right",
                      xycoords=axes.get_yaxis_transform(), textcoords="offset points")  # fmt: skip


def _name(axes: Axes, series: list[Series]) -> None:
    labels = [(one.label, one.points[-1], _shade(one.name)) for one in series if one.label]
    dots = [spot for one in series for spot in one.points[-(one.dots or len(one.points)) :]]
    place_labels(axes, labels, dict.fromkeys(dots, DOT_RADIUS))
