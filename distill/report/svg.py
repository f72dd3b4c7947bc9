"""Figures as inline SVG whose colours and fonts are the page's own, so that they follow its light and dark theme.

Matplotlib draws with stand-in colours; each is then replaced by a variable of the style sheet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
ROLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", PAPER: "var(--paper)"}
NUM_COLOURS = 10
"""Colours of the style sheet beside the teacher's; more series repeat them with another dash."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
NARROW_DECADES = 3
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lowpass",
    "font.size": 8,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 8,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@contextmanager
def page_style() -> Iterator[None]:
    """Draw with the page's stand-in colours."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def colour(number: int) -> str:
    """The stand-in of a series' colour; 0 is the teacher's."""
    return INK if number == 0 else f"#0505{(number - 1) % NUM_COLOURS + 1:02x}"


def dash(number: int) -> object:
    """The dash of a series, as Matplotlib's `linestyle`."""
    return DASHES[0] if number == 0 else DASHES[(number - 1) // NUM_COLOURS % len(DASHES)]


def plain_numbers(axes: Axes) -> None:
    """Write the numbers of logarithmic axes as people do: 1, 2, 5, 10, and no powers in raised print."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            narrow = high / low < 10**NARROW_DECADES
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def render(figure: Figure, name: str, description: str) -> str:
    """Turn a figure that was drawn under `page_style` into an SVG element.

    Args:
        figure: With no text that comes from outside.
        name: Unique on the page; it keeps the ids of figures apart.
        description: For those who cannot see it.
    """
    content = io.StringIO()
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure.savefig(content, format="svg", metadata=NO_METADATA)
    drawn = content.getvalue()
    box = re.search(r'viewBox="([^"]*)"', drawn)
    body = drawn[drawn.index("</defs>") + len("</defs>") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r" font-family: [^;]*;", "", body)
    roles = ROLES | {colour(number): f"var(--series-{number})" for number in range(1, NUM_COLOURS + 1)}
    for stand_in, variable in roles.items():
        body = body.replace(stand_in, variable)
    shape = "" if box is None else box.group()
    return f'<svg role="img" aria-label="{description}" {shape} xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
