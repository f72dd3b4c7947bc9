"""Plots of runs, drawn without a display."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill.evaluation.comparison import label
from distill.run import HISTORY_FILE, open_run
from distill.storage import write_file

METRIC = "Recall@20"


def plot_curves(runs: Sequence[Path], target: Path) -> None:
    """Draw validation Recall@20 against epochs and against training seconds.

    Runs that differ only in their seed share a colour and a line in the legend.

    Args:
        runs: Run directories; those without a history (imported teachers) are drawn as a level line, or
            not at all where nothing was validated.
        target: The PNG to write.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    colours: dict[str, str] = {}
    for path in runs:
        run = open_run(path)
        name = f"{label(run.config)} d {run.dim}"
        shown = f"_{name}" if name in colours else name  # matplotlib leaves a leading underscore out of the legend
        style = {"color": colours.setdefault(name, f"C{len(colours)}"), "label": shown, "linewidth": 1.2}
        history = path / HISTORY_FILE
        if not history.is_file():
            if "validation_all_users" in run.metrics:
                by_epoch.axhline(run.metrics["validation_all_users"][METRIC], linestyle="--", **style)
            continue
        with history.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        values = [float(row[METRIC]) for row in rows]
        by_epoch.plot([float(row["epoch"]) for row in rows], values, **style)
        by_time.plot([float(row["seconds"]) for row in rows], values, **style)
    _finish(by_epoch, by_time)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_file(target, content.getvalue())


def _finish(by_epoch: Axes, by_time: Axes) -> None:
    by_epoch.set(xlabel="epoch", ylabel=f"validation {METRIC} (all users)")
    by_time.set(xlabel="training time, s")
    by_time.set_xscale("log")
    for axes in (by_epoch, by_time):
        axes.grid(alpha=0.3)
    if by_epoch.lines:
        by_epoch.legend(fontsize=7)
