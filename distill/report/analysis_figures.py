"""Figures of an analysis: loss by knowledge group (the paper's Figures 1 and 2), spectrum, and kept share."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from distill.graph.analysis import METRIC, Analysis, Grouping, StudentAnalysis
from distill.graph.spectrum import Values

MARKERS = "osD^vPX<>*ph"
"""More runs than markers go unnamed: a legend would hide the plot, and the colour bar still ranks them."""
COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0, 0.9, 256)))
"""Without the last tenth, a yellow too pale for a line on white."""
LOWEST_KEPT = -1.0
LOWEST_SHARE = 1e-6
MAX_TICKS = 12

Series = Callable[[StudentAnalysis], Values]


def draw_figures(analysis: Analysis, grouping: Grouping, title: str) -> dict[str, Figure]:
    """Draw all three figures.

    Runs are coloured by their test Recall@20 where all have it and it differs, as in the paper's Figure 1.

    Args:
        analysis: The numbers.
        grouping: How the groups were cut; it decides what the horizontal axis shows.
        title: What the numbers are about: data set and graph.

    Returns:
        The figures "loss", "spectrum" and "kept".
    """
    return {
        "loss": _draw_losses(analysis, grouping, title),
        "spectrum": _draw_spectrum(analysis, grouping, title),
        "kept": _draw_kept(analysis, grouping, title),
    }


def encode_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _draw_losses(analysis: Analysis, grouping: Grouping, title: str) -> Figure:
    figure, axes = _start(f"Feature-distillation loss per knowledge group: {title}")
    _draw_students(figure, axes, analysis, grouping, lambda student: student.losses)
    axes.set_ylabel(r"$\|X_t - P(X_s)\|^2$ in the group")
    axes.set_yscale("log")
    _finish(figure, axes, analysis, grouping)
    return figure


def _draw_kept(analysis: Analysis, grouping: Grouping, title: str) -> Figure:
    figure, axes = _start(f"What the students kept of their teacher: {title}")
    _draw_students(figure, axes, analysis, grouping, analysis.kept)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("kept share, 1 − loss / teacher's energy")
    axes.set_ylim(max(axes.get_ylim()[0], LOWEST_KEPT), 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _finish(figure, axes, analysis, grouping)
    return figure


def _draw_spectrum(analysis: Analysis, grouping: Grouping, title: str) -> Figure:
    figure, axes = _start(f"Spectrum of teacher and students: {title}")
    places = _places(analysis, grouping)
    counts = analysis.groups.counts / analysis.groups.counts.sum()
    axes.bar(places, counts, places[1] - places[0], color="0.88", label="frequencies (the spectrum of noise)")
    _draw_students(figure, axes, analysis, grouping, lambda student: student.energies / student.energies.sum())
    teacher = analysis.teacher_energies / analysis.teacher_energies.sum()
    axes.plot(places, _hide_empty(analysis, teacher), color="black", linewidth=2.2, marker=".", label="teacher")
    axes.set_ylabel("share of the energy in the group")
    axes.set_yscale("log")
    axes.set_ylim(max(teacher[analysis.occupied].min() / 3, LOWEST_SHARE), 1)
    _finish(figure, axes, analysis, grouping)
    return figure


def _start(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def _draw_students(figure: Figure, axes: Axes, analysis: Analysis, grouping: Grouping, series: Series) -> None:
    known = [student.quality for student in analysis.students if student.quality is not None]
    by_quality = len(known) == len(analysis.students) and len(set(known)) > 1
    scale = Normalize(min(known, default=0), max(known, default=0))
    colours = list(COLOURS(scale(np.array(known)))) if by_quality else [f"C{n}" for n in range(len(analysis.students))]
    places, named = _places(analysis, grouping), len(analysis.students) <= len(MARKERS)
    for number, student in enumerate(analysis.students):
        axes.plot(
            places,
            _hide_empty(analysis, series(student)),
            color=colours[number],
            label=student.name if named else f"_{student.name}",
            linewidth=1.3,
            marker=MARKERS[number] if named else None,
            markersize=4,
        )
    if by_quality:
        figure.colorbar(ScalarMappable(scale, COLOURS), ax=axes, label=f"test {METRIC}", pad=0.02)


def _hide_empty(analysis: Analysis, values: Values) -> Values:
    """NaN where the teacher has nothing, so that a logarithmic axis shows a gap and not a fall to nothing."""
    return np.where(analysis.occupied, values, np.nan)


def _places(analysis: Analysis, grouping: Grouping) -> Values:
    if grouping == "equal-width":
        middles: Values = analysis.groups.bounds.mean(axis=1)
        return middles
    return np.arange(1.0, len(analysis.groups.bounds) + 1)


def _finish(figure: Figure, axes: Axes, analysis: Analysis, grouping: Grouping) -> None:
    if grouping == "equal-width":
        axes.set_xlim(0, 2)
        axes.set_xlabel("frequency λ: what neighbours share on the left, what sets them apart on the right")
    else:
        middles = analysis.groups.bounds.mean(axis=1)
        shown = np.arange(0, len(middles), math.ceil(len(middles) / MAX_TICKS))
        axes.set_xticks(shown + 1, [f"{row + 1}\n{middles[row]:.2f}" for row in shown])
        axes.set_xlabel("knowledge group, and the middle of its frequencies λ")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
