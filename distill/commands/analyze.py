"""The command of the frequency view: analyze."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from distill.commands.options import DIRECTORY, JSON
from distill.data.interactions import load_interactions
from distill.graph.adjacency import Graph
from distill.graph.analysis import Grouping, View, analyze_data
from distill.report.figures import draw_figures, encode_png
from distill.report.tables import render_analysis
from distill.run import open_run
from distill.storage import write_file


@click.command("analyze")
@click.argument("data", type=DIRECTORY)
@click.argument("runs", nargs=-1, required=True, type=DIRECTORY)
@click.option("--teacher", type=DIRECTORY, required=True, help="The teacher's run.")
@click.option("--graph", type=click.Choice(["bipartite", "cooccurrence"]), default="bipartite", show_default=True)
@click.option("--neighbors", "num_neighbors", type=click.IntRange(1), default=5, show_default=True,
              help="K of the co-occurrence graph.")  # fmt: skip
@click.option("--bands", "num_groups", type=click.IntRange(2), default=21, show_default=True,
              help="Knowledge groups; an odd number keeps frequency 1 inside one.")  # fmt: skip
@click.option("--groups", "grouping", type=click.Choice(["equal-width", "equal-count"]), default="equal-width",
              show_default=True, help="Equal in width, or in number of frequencies (small graphs only).")  # fmt: skip
@click.option("--out", type=DIRECTORY, help="Write analysis.json and the figures here.")
@JSON
def analyze_runs(
    data: Path, runs: tuple[Path, ...], teacher: Path, graph: Graph, num_neighbors: int, num_groups: int,
    grouping: Grouping, out: Path | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Show by frequency what the student RUNS kept of their teacher, over the graph of the data directory DATA.

    Each student is measured through the best linear projector into the teacher's space, fitted afterwards. Up to
    6,000 users and items the frequencies are exact; beyond, groups have soft boundaries.

    Example: lowpass analyze data/ml-100k --teacher runs/teacher runs/fd runs/freqd --out analysis
    """
    interactions = load_interactions(data)
    opened = [open_run(path) for path in (teacher, *runs)]
    for run in opened:
        run.require_same_data(interactions)
    view = View(graph, num_neighbors, num_groups, grouping)
    analysis = analyze_data(interactions, opened[0], opened[1:], _names(runs), view, progress=True)
    report = analysis.as_dict()
    if out is not None:
        write_file(out / "analysis.json", (json.dumps(report, indent=2) + "\n").encode())
        for name, figure in draw_figures(analysis).items():
            write_file(out / f"{name}.png", encode_png(figure))
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(render_analysis(analysis))
    if analysis.isolated_entities:
        entities = interactions.num_users + interactions.num_items
        click.echo(f"\n{analysis.isolated_entities:,} of {entities:,} entities have no edge: they stand at frequency 1")


def _names(runs: Sequence[Path]) -> list[str]:
    """Directory names where they tell the runs apart, whole paths where they do not."""
    names = [path.resolve().name for path in runs]
    return names if len(set(names)) == len(names) else [str(path) for path in runs]
