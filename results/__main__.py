"""The command `python -m results`: it runs a plan's missing cells and writes RESULTS.md, its figure and its pages."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatch
from pathlib import Path

import click

import lowpass
from distill.commands.options import DIRECTORY
from distill.storage import write_file
from results.cells import read_cells
from results.figures import render_figures
from results.plan import load_plan
from results.runner import Folders, rounds, run_plan
from results.standing import standing_cells
from results.tables import render_pages

STALE = "stale, not what the plan says now; it will be run again"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--results", "folder", type=DIRECTORY, default="results", show_default=True,
              help="Folder of plan.toml, cells.csv and readings; the studies' pages are written there.")  # fmt: skip
@click.option("--sources", type=DIRECTORY, default="../shared/data", show_default=True,
              help="Folder of the public data sets.")  # fmt: skip
@click.option("--work", type=DIRECTORY, default="runs/results", show_default=True,
              help="Prepared data and runs; what is there is used again.")  # fmt: skip
@click.option("--only", default="*", show_default=True, help="Cells to run, by pattern, e.g. 'ml-1m/*/freqd*'.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Cells side by side.")
@click.option("--list", "list_only", is_flag=True,
              help="Say which cells can be run next and which rows are stale, and run nothing.")  # fmt: skip
@click.option("--render", is_flag=True, help="Write the pages of what is there, and run nothing.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="RESULTS.md", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def results(
    folder: Path, sources: Path, work: Path, only: str, jobs: int, out: Path, *,
    list_only: bool, render: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run the cells of a plan that are missing and write the tables and the figure.

    A cell that is in the table is not run again; a training that was cut off goes on. Rows that were made with other
    settings than the plan's are stale: they are named by --list, shown nowhere, and run again.

    Example: python -m results --only 'ml-100k/*' --jobs 2
    """
    plan = load_plan(folder / "plan.toml")
    folders = Folders(sources, work, folder)
    if not render and not list_only:
        run_plan(plan, folders, only=only, jobs=jobs)
    names = [cell.name for study in plan.studies for part in rounds(plan, study, folders) for cell in part]
    chosen = [name for name in names if fnmatch(name, only)]
    cells = read_cells(folders.cells)
    stale = [name for name in standing_cells(plan, cells)[1] if fnmatch(name, only)]
    missing = [name for name in chosen if name not in cells]
    if not list_only:
        pages = {path: text.encode() for path, text in render_pages(plan, cells, folder, out).items()}
        for path, content in {**pages, **render_figures(plan, cells, folder)}.items():
            write_file(path, content)
    if as_json:
        click.echo(json.dumps({"cells": len(chosen), "missing": missing, "stale": stale}))
        return
    for line in [*missing, *(f"{name}: {STALE}" for name in stale)] if list_only else ():
        click.echo(line)
    done = len(set(chosen) - {*missing, *stale})
    aside = f", {len(stale)} rows are stale" if stale else ""
    click.echo(f"{done} of {len(chosen)} cells are there{aside}" + ("" if list_only else f"; {out}"))


if __name__ == "__main__":
    sys.exit(lowpass.main(command=results, name="python -m results"))
