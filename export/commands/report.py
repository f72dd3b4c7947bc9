"""The command that writes the page: report.

It stands here and not among the commands of `distill` because it may be given a frontier, which `export` measures.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from distill.report.material import gather
from distill.report.page import render_page
from distill.report.sections import Section, build_sections
from distill.storage import write_file
from export.commands.options import DIRECTORY, JSON_OPTION
from export.frontier.reading import read_frontier

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=DIRECTORY)
@click.option("--out", type=FILE, default=Path("report.html"), show_default=True, help="The page to write.")
@click.option("--data", type=DIRECTORY,
              help="The data directory; brings the paired test, the popularity deciles, and on small graphs the "
                   "frequencies.")  # fmt: skip
@click.option("--analysis", type=FILE, help="analysis.json of 'lowpass analyze --out'; brings the frequencies.")
@click.option("--frontier", type=click.Path(path_type=Path),
              help="Output directory of 'lowpass frontier', or its frontier.json; brings the frontier.")  # fmt: skip
@click.option("--title", help="[default: the data set's name]")
@JSON_OPTION
def report(
    runs: tuple[Path, ...], out: Path, data: Path | None, analysis: Path | None, frontier: Path | None,
    title: str | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Write one self-contained HTML page on the RUNS of one data set: it needs no network and no other file.

    Runs that differ only in their seed are shown as one, with their spread. The teacher is added where it is found.

    Example: lowpass report runs/scratch-* runs/freqd-* --data data/ml-100k --out report.html
    """
    material = gather(runs, data, analysis, None if frontier is None else read_frontier(frontier))
    sections = build_sections(material, progress=True)
    page = render_page(material, sections, title or f"Distillation on {material.data_name}")
    write_file(out, page.encode())
    shown = [section.title for section in sections if isinstance(section, Section)]
    missing = {section.title: section.remedy for section in sections if not isinstance(section, Section)}
    if as_json:
        click.echo(json.dumps({"report": str(out), "sections": shown, "left_out": missing}))
        return
    click.echo(f"{out}: {len(page.encode()) / 1e6:.1f} MB, {len(material.runs)} runs: {', '.join(shown)}")
    for name, remedy in missing.items():
        click.echo(f"left out: {name}; {remedy}")
