"""Quality against each swept setting, a panel each: the paper's Figures 3 (α) and 4 (β), and the like for any other.

A point is a trial. Where several settings vary at once, the points of a panel differ in more than its own setting, so
the line joins the best trial at each value: what can be had there, everything else chosen well. Numbers drawn at
random hardly repeat; they are gathered into about √n groups of neighbours, and the best of each is joined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill.report.figures.style import DASHES, MUTED, WIDTH, add_legend, colour, in_style, plain_numbers
from distill.report.material import METRIC

COLUMNS = 3
MAX_SERIES = 6
"""Student dimensions that get a line each; quality at different sizes is not to be mixed."""
DIMENSION = "dim"
SYMBOLS = {
    "alpha": "α of the filter",
    "distillation_weight": "β, weight of the distillation loss",
    "num_neighbors": "K, neighbours of the co-occurrence graph",
    "dim": "d of the student",
    "learning_rate": "learning rate",
}

Trial = Mapping[str, Any]
Values = npt.NDArray[np.float64]


@in_style()
def draw_sweep(summary: Mapping[str, Any], references: Sequence[tuple[str, float]]) -> Figure:
    """Draw one panel a swept setting.

    Args:
        summary: From `distill.training.sweep`; at least one trial has finished.
        references: Name and validation Recall@20 of runs to compare with, drawn as level lines.
    """
    trials = [trial for trial in summary["trials"] if trial["value"] is not None]
    space = summary["space"]
    columns = 2 if len(space) == 4 else min(COLUMNS, len(space))
    rows = math.ceil(len(space) / columns)
    figure = Figure(figsize=(WIDTH * max(columns, 2) / COLUMNS, 3.6 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, axis in zip(panels, space, strict=False):
        _draw_panel(panel, axis, trials, alone=len(space) == 1)
        for number, (name, value) in enumerate(references):
            panel.axhline(value, color=MUTED, linewidth=1.2, linestyle=DASHES[(number + 1) % len(DASHES)], label=name)
    for panel in panels[len(space) :]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel(f"validation {METRIC}")
    figure.suptitle(f"{summary['method']} on {summary['data']}: {len(trials)} trials")
    add_legend(figure)
    return figure


def _draw_panel(panel: Axes, axis: Mapping[str, Any], trials: Sequence[Trial], *, alone: bool) -> None:
    name, words = axis["name"], _places_of_words(axis)
    panel.set_xlabel(SYMBOLS.get(name, name))
    if axis.get("log"):
        panel.set_xscale("log")
    if words:
        panel.set_xticks(list(words.values()), list(words))
        panel.set_xlim(-0.5, len(words) - 0.5)
    for number, (label, members) in enumerate(_series(name, trials), start=1):
        x = np.array([words.get(trial["settings"][name], trial["settings"][name]) for trial in members], np.float64)
        y = np.array([trial["value"] for trial in members])
        shade = MUTED if name == DIMENSION else colour(number)
        panel.scatter(x, y, s=16, color=shade, alpha=0.45, linewidths=0)
        best = _upper_line(x, y, every_value=alone or "values" in axis)
        style: dict[str, Any] = {"color": shade, "marker": "o", "linestyle": "none" if words else "-", "markersize": 5}
        panel.plot(x[best], y[best], label=label, **style)
    plain_numbers(panel)


def _series(name: str, trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """Trials by the student's dimension where it is swept beside this setting, else all together."""
    dims = sorted({int(trial["settings"].get(DIMENSION, 0)) for trial in trials})
    if name == DIMENSION or not 1 < len(dims) <= MAX_SERIES:
        return [("best trials", list(trials))]
    by_dim = {dim: [trial for trial in trials if int(trial["settings"][DIMENSION]) == dim] for dim in dims}
    return [(f"best trials, d {dim}", members) for dim, members in by_dim.items()]


def _places_of_words(axis: Mapping[str, Any]) -> dict[str, float]:
    """Where choices that are no numbers stand: side by side."""
    try:
        [float(value) for value in axis.get("values", ())]
    except ValueError:
        return {value: float(place) for place, value in enumerate(axis["values"])}
    return {}


def _upper_line(x: Values, y: Values, *, every_value: bool) -> list[int]:
    """Positions of the best trial at each value, or in each of some groups of neighbouring values."""
    values, counts = np.unique(x, return_counts=True)
    repeated = every_value or counts.min() > 1
    groups = np.array_split(values, len(values) if repeated else math.isqrt(len(values) - 1) + 1)
    rows = np.argsort(-y, kind="stable")
    return [next(int(row) for row in rows if x[row] in group) for group in groups]
