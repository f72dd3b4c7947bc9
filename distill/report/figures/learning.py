"""How runs learned: validation quality by epoch and by training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from distill.report.figures.style import (
    LEVEL,
    WIDTH,
    add_legend,
    colour,
    encode_png,
    in_style,
    line_style,
    plain_numbers,
)
from distill.report.material import CLOCKS, METRIC, Curve, Group, build_groups, read_histories
from distill.run import open_run
from distill.storage import write_file


def plot_curves(runs: Sequence[Path], target: Path) -> None:
    """Draw the learning curves of some runs into a PNG file.

    Args:
        runs: Run directories.
        target: Where the PNG goes.

    Raises:
        RunError: A run is unreadable.
    """
    opened = [open_run(path) for path in runs]
    curves, clock = read_histories(opened)
    write_file(target, encode_png(draw_learning(build_groups(opened), curves, clock)))


@in_style()
def draw_learning(groups: Sequence[Group], curves: Mapping[Path, Curve], clock: str, *, named: bool = True) -> Figure:
    """Draw validation Recall@20 against epochs and against training time; a line is a run.

    Args:
        groups: Their runs share a colour. One without a curve (embeddings from outside) is a level line, or nothing
            where it was not validated.
        curves: Run directory → curve.
        clock: The name of the time in the curves.
        named: Write the groups' names into the figure; the page writes them itself.
    """
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    by_epoch, by_time = panels = figure.subplots(1, 2, sharey=True)
    for group in groups:
        style = {**line_style(group.colour), "label": group.name}
        for run in group.runs:
            if run.path in curves:
                curve = curves[run.path]
                by_epoch.plot(curve.epochs, curve.values, **style)
                by_time.plot(curve.seconds, curve.values, **style)
            elif "validation_all_users" in run.metrics:
                level = run.metrics["validation_all_users"][METRIC]
                for axes in panels:
                    axes.axhline(level, color=colour(group.colour), linestyle=LEVEL, linewidth=1.2, label=group.name)
    by_epoch.set(xlabel="epoch", ylabel=f"validation {METRIC}, mean over all users")
    by_time.set(xlabel=f"training time ({name_clock(clock)}), s", xscale="log")
    plain_numbers(by_time)
    if named:
        add_legend(figure)
    return figure


def name_clock(clock: str) -> str:
    """The time of a history's column, in words."""
    return "processor time" if clock == CLOCKS[0] else "wall-clock time"
