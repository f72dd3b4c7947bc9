"""Command `results`: run a plan's missing cells and write RESULTS.md."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--plan", "plan_path", type=FILE, default="results/plan.toml", show_default=True)
@click.option("--sources", type=DIRECTORY, default="../shared/data", show_default=True,
              help="Folder of the public data sets.")  # fmt: skip
@click.option("--work", type=DIRECTORY, default="runs/results", show_default=True,
              help="Prepared data and runs; what is there is used again.")  # fmt: skip
@click.option("--results", type=DIRECTORY, default="results", show_default=True, help="Folder of the cells.")
@click.option("--only", default="*", show_default=True, help="Cells to run, by pattern, e.g. 'ml-1m/*/freqd*'.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Cells side by side.")
@click.option("--list", "list_only", is_flag=True, help="Say which cells can be run next, and run nothing.")
@click.option("--render", is_flag=True, help="Write the tables of what is there, and run nothing.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="RESULTS.md", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def results(
    plan_path: Path, sources: Path, work: Path, results: Path, only: str, jobs: int, out: Path, *,
    list_only: bool, render: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run the cells of a plan that are missing and write the tables.

    A cell that has a file is not run again; a training that was cut off goes on.

    Example: lowpass results --only 'ml-100k/*' --jobs 2
    """
    from distill.storage import write_file
    from results.page import render_results
    from results.plan import load_plan
    from results.runner import Folders, rounds, run_plan

    plan = load_plan(plan_path)
    folders = Folders(sources, work, results)
    if not render and not list_only:
        run_plan(plan, folders, only=only, jobs=jobs)
    cells = [cell for study in plan.studies for part in rounds(plan, study, folders) for cell in part]
    chosen = [cell for cell in cells if fnmatch(cell.name, only)]
    missing = [cell.name for cell in chosen if not cell.path(results).is_file()]
    if not list_only:
        write_file(out, render_results(plan, results, plan_path.with_name("readings")).encode())
    if as_json:
        click.echo(json.dumps({"cells": len(chosen), "missing": missing}))
        return
    for name in missing if list_only else ():
        click.echo(name)
    click.echo(f"{len(chosen) - len(missing)} of {len(chosen)} cells are there" + ("" if list_only else f"; {out}"))
