"""An analysis by frequency: loss by knowledge group (the paper's Figures 1 and 2), spectrum, and kept share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from distill.graph.analysis import METRIC, Analysis
from distill.graph.spectrum import Values
from distill.report.figures.style import (
    GRID,
    INK,
    MARKERS,
    WIDTH,
    add_legend,
    in_style,
    line_style,
    plain_numbers,
)

QUALITIES = ListedColormap(colormaps["viridis"](np.linspace(0, 0.9, 256)))
"""Colours of qualities, low to high; without the last tenth, a yellow too pale for a line on white."""
LOWEST_KEPT = -1.0
LOWEST_SHARE = 1e-6
MAX_TICKS = 12

Styles = Sequence[dict[str, Any]]
"""Arguments of `Axes.plot`, one entry a student."""


@in_style()
def draw_figures(analysis: Analysis) -> dict[str, Figure]:
    """Draw loss, spectrum and kept share, a figure each.

    Runs are coloured by their test Recall@20 where all have it and it differs, as in the paper's Figure 1. More runs
    than there are markers go unnamed: a legend would hide the plot, and the colour bar still ranks them.

    Returns:
        The figures "loss", "spectrum" and "kept".
    """
    known = [student.quality for student in analysis.students if student.quality is not None]
    styles, scale = [line_style(number) for number in range(1, len(analysis.students) + 1)], None
    if len(known) == len(styles) and len(set(known)) > 1:
        scale = Normalize(min(known), max(known))
        styles = [{"color": QUALITIES(scale(quality))} for quality in known]
    if len(styles) <= len(MARKERS):
        styles = [{**style, "marker": marker} for style, marker in zip(styles, MARKERS, strict=False)]
    about, figures = f"{analysis.data}, {analysis.view.graph} graph", {}
    for name, (panel, title) in PANELS.items():
        figure = figures[name] = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        axes = figure.subplots()
        panel(axes, analysis, styles)
        axes.set_title(f"{title}: {about}")
        if scale is not None:
            figure.colorbar(ScalarMappable(scale, QUALITIES), ax=axes, label=f"test {METRIC}", pad=0.02)
        add_legend(figure)
    return figures


@in_style()
def draw_frequencies(analysis: Analysis, numbers: Sequence[int]) -> Figure:
    """Draw kept share and spectrum side by side, without a name in them.

    Args:
        analysis: What to draw.
        numbers: Of each student's colour.
    """
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, 2), (_draw_kept, _draw_spectrum), strict=True):
        panel(axes, analysis, [{**line_style(number), "marker": "o", "markersize": 3} for number in numbers])
    return figure


def _draw_losses(axes: Axes, analysis: Analysis, styles: Styles) -> None:
    _draw_students(axes, analysis, styles, [student.losses for student in analysis.students])
    axes.set_ylabel(r"$\|X_t - P(X_s)\|^2$ in the group")
    axes.set_yscale("log")
    plain_numbers(axes)


def _draw_kept(axes: Axes, analysis: Analysis, styles: Styles) -> None:
    _draw_students(axes, analysis, styles, [analysis.kept(student) for student in analysis.students])
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("kept share, 1 − loss / teacher's energy")
    axes.set_ylim(max(axes.get_ylim()[0], LOWEST_KEPT), 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _draw_spectrum(axes: Axes, analysis: Analysis, styles: Styles) -> None:
    places, teacher = _places(analysis), _hide_empty(analysis, _share(analysis.teacher_energies))
    bars: dict[str, Any] = {"color": GRID, "zorder": 0, "label": "frequencies (the spectrum of noise)"}
    axes.bar(places, _share(analysis.groups.counts), places[1] - places[0], **bars)
    _draw_students(axes, analysis, styles, [_share(student.energies) for student in analysis.students])
    axes.plot(places, teacher, color=INK, linewidth=2.2, marker=".", label="teacher", zorder=2.5)
    axes.set_ylabel("share of the energy in the group")
    axes.set_yscale("log")
    axes.set_ylim(max(np.nanmin(teacher) / 3, LOWEST_SHARE), 1)
    plain_numbers(axes)


PANELS = {
    "loss": (_draw_losses, "Feature-distillation loss per knowledge group"),
    "spectrum": (_draw_spectrum, "Spectrum of teacher and students"),
    "kept": (_draw_kept, "What the students kept of their teacher"),
}


def _draw_students(axes: Axes, analysis: Analysis, styles: Styles, series: Sequence[Values]) -> None:
    """Draw a line a student over the horizontal axis of all panels: frequencies, or numbered groups."""
    places, named = _places(analysis), len(styles) <= len(MARKERS)
    for student, style, values in zip(analysis.students, styles, series, strict=True):
        # Matplotlib leaves what begins with an underscore out of its legends.
        label = student.name if named else f"_{student.name}"
        axes.plot(places, _hide_empty(analysis, values), label=label, **style)
    if analysis.view.grouping == "equal-width":
        axes.set_xlim(0, 2)
        axes.set_xlabel("frequency λ: neighbours alike on the left, set apart on the right")
        return
    middles = analysis.groups.bounds.mean(axis=1)
    shown = np.arange(0, len(middles), math.ceil(len(middles) / MAX_TICKS))
    axes.set_xticks(shown + 1, [f"{row + 1}\n{middles[row]:.2f}" for row in shown])
    axes.set_xlabel("knowledge group, and the middle of its frequencies λ")


def _share(values: Values) -> Values:
    shares: Values = values / values.sum()
    return shares


def _hide_empty(analysis: Analysis, values: Values) -> Values:
    """NaN where the teacher has nothing, so that a logarithmic axis shows a gap and not a fall to nothing."""
    return np.where(analysis.occupied, values, np.nan)


def _places(analysis: Analysis) -> Values:
    if analysis.view.grouping == "equal-width":
        middles: Values = analysis.groups.bounds.mean(axis=1)
        return middles
    return np.arange(1.0, len(analysis.groups.bounds) + 1)
