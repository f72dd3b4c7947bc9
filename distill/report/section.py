"""The parts a page is made of; `template.html` knows how to show each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        emphasis: "best", "better", "worse", or "" for a plain one.
        share: Length of a bar behind the text, in [0, 1]; None for none.
        hint: Shown when the pointer rests on it.
        colour: Number of a group's colour, shown as a swatch; None for none.
    """

    text: str
    emphasis: str = ""
    share: float | None = None
    hint: str = ""
    colour: int | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: Above it.
        header: One entry a column.
        rows: As many cells each; text stands for a plain cell.
        words: Columns, from the left, that hold words and not numbers.
        fold: Whether it is folded away at first.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: int = 1
    fold: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        svg: From `distill.report.svg.render`, nothing in it comes from the user.
        caption: Below it.
        legend: Name and number of the colour of each series.
    """

    svg: str
    caption: str
    legend: Sequence[tuple[str, int]] = ()
    kind: str = field(default="chart", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph, or literal text that is folded away under a title."""

    text: str
    title: str = ""
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        lead: What it is about, in a sentence or two.
        parts: In order.
    """

    name: str
    title: str
    lead: str
    parts: Sequence[Table | Chart | Text]


@dataclass(frozen=True)
class LeftOut:
    """A section that is not on the page.

    Attributes:
        title: Its heading.
        remedy: What brings it.
    """

    title: str
    remedy: str


def mean_and_spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean ± sample standard deviation; the mean alone of a single value, a dash of none."""
    if not values:
        return NOTHING
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
