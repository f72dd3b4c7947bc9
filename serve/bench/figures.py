"""What was measured, as PNG pictures of one style: latency by percentile, and models side by side.

Colours are Okabe and Ito's, which colour-blind readers tell apart (https://jfly.uni-koeln.de/color/). Matplotlib is
imported when a picture is drawn: the `serve` extra does not bring it, so both functions may raise ImportError.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from serve.bench.comparison import Measurement, Role
from serve.bench.report import Row, glance, headline, name_of, rivals_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, BAND = "#1a1e24", "#5f6875", "#e2e5ea", "#eaf3fa"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
COLOURS = {
    Role.TEACHER: "#7f8894",
    Role.STUDENT: SERIES[0],
    Role.SVD: SERIES[4],
    Role.PQ: SERIES[2],
    Role.OTHER: SERIES[3],
}
LONGEST_NAME = 15
STYLE = {
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure in our style, and where its PNG goes when the block ends; inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure, png = Figure(figsize=(width, height)), io.BytesIO()
        yield figure, png
        figure.savefig(png, format="png", dpi=120)


def draw_latencies(latencies: Mapping[str, npt.NDArray[np.float64]]) -> bytes:
    """Draw latency against percentile, the tail stretched, a line a target; PNG.

    Args:
        latencies: Target → latencies in milliseconds, shape (n,).
    """
    with _figure(9, 4.5) as (figure, png):
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for number, (name, found) in enumerate(latencies.items()):
            values = np.sort(found)
            shares = np.arange(len(values)) / len(values)
            axes.plot(1 / (1 - shares), values, label=name, color=SERIES[number % len(SERIES)], linewidth=1.6)
        axes.set_xscale("log")
        ticks = [1, 2, 10, 100, 1000, 10_000]
        axes.set_xticks(ticks, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
        axes.set_xlabel("percentile of requests")
        axes.set_ylabel("latency, ms")
        axes.set_ylim(bottom=0)
        axes.grid()
        axes.legend(frameon=False)
    return png.getvalue()


def draw_comparison(measurements: Sequence[Measurement]) -> bytes:
    """Draw the rows of `report.glance`, a column of bars each and a line of bars a model, under the finding; PNG.

    Args:
        measurements: The teacher first, the student second, then others.
    """
    from matplotlib.patches import Rectangle

    rows, count = glance(measurements), len(measurements)
    height = 2.25 + 0.85 * count
    with _figure(15, height) as (figure, png):
        top, bottom, left = 1 - 1.95 / height, 0.3 / height, 0.165
        spaces = {"left": left, "right": 0.995, "top": top, "bottom": bottom, "wspace": 0.06}
        panels = figure.subplots(1, len(rows), gridspec_kw=spaces)
        line = (top - bottom) / count
        figure.patches.append(
            Rectangle((0, top - 2 * line), 1, line, transform=figure.transFigure, color=BAND, zorder=-1)
        )
        for axes, row in zip(panels, rows, strict=True):
            _draw_row(axes, row, measurements)
        for place, m in enumerate(measurements):
            middle = top - (place + 0.5) * line
            figure.text(0.015, middle, _call(m), va="bottom", fontsize=14, fontweight="bold")
            figure.text(0.015, middle - 0.02 / height, _explain(m), va="top", fontsize=10.5, color=MUTED)
        figure.text(0.015, 1 - 0.48 / height, headline(measurements), fontsize=19, fontweight="bold", va="center")
        figure.text(0.015, 1 - 0.92 / height, rivals_line(measurements), fontsize=13, color=MUTED, va="center")
    return png.getvalue()


def _call(m: Measurement) -> str:
    """A name that fits beside the bars."""
    name = m.role.name if m.role in {Role.SVD, Role.PQ} else name_of(m)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _explain(m: Measurement) -> str:
    """A model in a few words, for a reader who does not know what the roles are."""
    return {
        Role.TEACHER: f"big: {m.dim} numbers",
        Role.STUDENT: f"distilled: {m.dim} numbers",
        Role.SVD: f"teacher cut to {m.dim} numbers",
        Role.PQ: f"teacher coded in {m.item_bytes:,.0f} bytes",
        Role.OTHER: f"{m.dim} numbers",
    }[m.role]


def _draw_row(axes: Axes, row: Row, measurements: Sequence[Measurement]) -> None:
    """One figure of all models: bars from the top down, each with its number and, under that, how it compares."""
    values = [cell.value or 0.0 for cell in row.cells]
    longest = max(values) or 1.0
    for place, (cell, value, m) in enumerate(zip(row.cells, values, measurements, strict=True)):
        bold: Any = "bold" if m.role is Role.STUDENT else "normal"
        axes.barh(place, value, height=0.5, color=COLOURS[m.role])
        beside = value + 0.04 * longest
        axes.text(beside, place, cell.text, va="bottom", fontweight=bold, fontsize=13)
        axes.text(beside, place + 0.02, cell.note, va="top", fontweight=bold, fontsize=10.5, color=MUTED)
    axes.set_xlim(0, 2.1 * longest)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.patch.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    better = "more is better" if row.more_is_better else "less is better"
    axes.set_title(row.title, loc="left", fontsize=14, fontweight="bold", pad=22)
    axes.text(0, 1.02, better, transform=axes.transAxes, fontsize=10.5, color=MUTED, va="bottom")
