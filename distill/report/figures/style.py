"""One style for every figure: colours, dashes, markers, print and legends, and the encoders to PNG and to inline SVG.

Figures are drawn in the colours of the light theme. A PNG keeps them; in an SVG each becomes the variable of the style
sheet that holds it, so that the figure follows the page's light and dark theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

THEMES = {
    "light": {
        "paper": "#ffffff", "raised": "#f6f7f9", "ink": "#1a1e24", "muted": "#5f6875", "line": "#e2e5ea",
        "accent": "#0b5cc4", "bar": "#dcebfb", "better": "#d8f0df", "worse": "#fbe0dc", "chosen": "#d0006f",
        "series-1": "#0a6bb5", "series-2": "#d3560a", "series-3": "#12876a", "series-4": "#b83a8c",
        "series-5": "#9c7a00", "series-6": "#5b4bb0", "series-7": "#0f8a99", "series-8": "#8b4b3f",
        "series-9": "#6a8a12", "series-10": "#6d7683",
    },
    "dark": {
        "paper": "#14171c", "raised": "#1c2027", "ink": "#e6e9ee", "muted": "#9aa3b0", "line": "#2d333d",
        "accent": "#74b0ff", "bar": "#1d3a5c", "better": "#1c4530", "worse": "#552722", "chosen": "#ff5fb0",
        "series-1": "#5fb0ee", "series-2": "#f58a4b", "series-3": "#4cc7a1", "series-4": "#ea7fc3",
        "series-5": "#dcb94a", "series-6": "#a294f0", "series-7": "#54cddb", "series-8": "#d08c7e",
        "series-9": "#a9cc4f", "series-10": "#a4adba",
    },
}  # fmt: skip
"""The colours of the page, which its style sheet names `--paper` and so on."""
LIGHT = THEMES["light"]
INK, MUTED, GRID, PAPER, CHOSEN = (LIGHT[name] for name in ("ink", "muted", "line", "paper", "chosen"))
NUM_COLOURS = 10
"""Colours beside the teacher's; more series repeat them with another dash."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
LEVEL = (0, (4, 3))
"""The dash of what is no series: limits, and what other runs reached."""
MARKERS = "osD^vPX<>*ph"
WIDTH = 11.0
"""Inches of a figure; at the page's full width its print is then as large as the page's own."""
DPI = 120
FONT, SMALL_FONT = 9.0, 8.0
EM_PER_LETTER = 0.63
"""Width of a letter of the font, on average and a little more."""
LETTERS_OF_A_HANDLE = 8
"""What a legend's mark and the gaps around it take."""
NARROW_DECADES = 3
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lowpass",
    "font.size": FONT,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": FONT + 1,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.titlesize": FONT + 2,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": SMALL_FONT,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@contextmanager
def in_style() -> Iterator[None]:
    """Draw in this style; also a decorator of what draws."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def colour(number: int) -> str:
    """The colour of a series; 0 is the teacher's."""
    return INK if number == 0 else LIGHT[f"series-{(number - 1) % NUM_COLOURS + 1}"]


def dash(number: int) -> Any:
    """The dash of a series, as Matplotlib's `linestyle`."""
    return DASHES[0] if number == 0 else DASHES[(number - 1) // NUM_COLOURS % len(DASHES)]


def line_style(number: int) -> dict[str, Any]:
    """Colour and dash of a series, as arguments of `Axes.plot`."""
    return {"color": colour(number), "linestyle": dash(number)}


def plain_numbers(axes: Axes) -> None:
    """Write the numbers of logarithmic axes as people do: 1, 2, 5, 10, and no powers in raised print."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            narrow = high / low < 10**NARROW_DECADES
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def add_legend(figure: Figure, handles: Sequence[Artist] = ()) -> None:
    """Name every labelled artist of the figure once, below the panels, in as many columns as the width holds.

    Args:
        figure: Drawn.
        handles: What to name instead of the artists found.
    """
    named: dict[str, Artist] = {str(handle.get_label()): handle for handle in handles}
    if not handles:
        for axes in figure.axes:
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                named.setdefault(name, handle)
    if named:
        room = int(figure.get_figwidth() * 72 / SMALL_FONT / EM_PER_LETTER) - LETTERS_OF_A_HANDLE
        shown = [_shorten(name, room) for name in named]
        columns = room // (max(map(len, shown)) + LETTERS_OF_A_HANDLE)
        figure.legend(named.values(), shown, loc="outside lower center", ncols=min(max(columns, 1), len(shown)))


def _shorten(name: str, room: int) -> str:
    """Leave out the middle of a name that is longer than the figure is wide."""
    return name if len(name) <= room else f"{name[: room // 2 - 1]}…{name[-(room // 2) :]}"


def encode_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    content = io.BytesIO()
    with in_style():
        figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def encode_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element that takes colours and fonts from the page around it.

    Args:
        figure: With no text that comes from outside.
        name: Unique on the page; it keeps the ids of figures apart.
        description: For those who cannot see it.
    """
    content = io.StringIO()
    with in_style():
        figure.savefig(content, format="svg", transparent=True, metadata=NO_METADATA)
    drawn = content.getvalue()
    box = re.search(r'viewBox="([^"]*)"', drawn)
    body = drawn[drawn.index("</defs>") + len("</defs>") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r" font-family: [^;]*;", "", body)
    for variable, shade in LIGHT.items():
        body = body.replace(shade, f"var(--{variable})")
    shape = "" if box is None else box.group()
    return f'<svg role="img" aria-label="{description}" {shape} xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
