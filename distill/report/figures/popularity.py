"""How far the recommended items lean to what is popular anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from distill.data.interactions import Interactions
from distill.report.figures.style import MUTED, WIDTH, add_legend, in_style, line_style
from distill.report.material import DECILES, Group, Lists, popularity_deciles, share_by_decile


@in_style()
def draw_popularity(
    groups: Sequence[Group], lists: Mapping[Path, Lists], data: Interactions, *, named: bool = True
) -> Figure:
    """Draw the share of recommended items in each tenth of the catalogue, over that of the test items as bars.

    Args:
        groups: A line each, the mean over its runs.
        lists: Run directory → what the run recommends.
        data: Its training split ranks the catalogue.
        named: Write the groups' names into the figure; the page writes them itself.
    """
    places = np.arange(1, DECILES + 1)
    taken = share_by_decile(data.test.indices, popularity_deciles(data))
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.bar(places, 100 * taken, color=MUTED, alpha=0.25, width=0.8, label="taken in the test split")
    for group in groups:
        shares = np.mean([lists[run.path].deciles for run in group.runs], axis=0)
        axes.plot(places, 100 * shares, **line_style(group.colour), marker="o", label=group.name)
    axes.set_xticks(places)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("tenth of the catalogue by popularity, the most popular on the right")
    axes.set_ylabel("share of the list, %")
    axes.set_ylim(bottom=0)
    if named:
        add_legend(figure)
    return figure
