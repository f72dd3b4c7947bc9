"""Command `evaluate`: the quality of one run, of several side by side, and of what is no run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from distill.baselines import EASE_MAX_BYTES, GRIDS, report_baselines
from distill.commands.options import DIRECTORY, EVAL_USERS, FILE, JSON, refuse
from distill.data.interactions import Interactions, load_interactions
from distill.evaluation.comparison import compare_runs
from distill.evaluation.leaderboard import evaluate_run, largest_errors, rank_models
from distill.evaluation.protocol import Protocol, describe_sample
from distill.report.blends import compare_blends, reports_under
from distill.report.figures import plot_curves
from distill.report.tables import Table, render_comparison, render_markdown
from distill.run import Run, open_run, write_ids, write_run

Baselines = Mapping[str, Mapping[str, Any]]

NEED_DATA = {"split", "mask", "cutoffs", "eval_users", "baselines", "ease_max_bytes", "save"}


@click.command()
@click.argument("runs", nargs=-1, type=DIRECTORY, metavar="[RUN]...")
@click.option("--data", type=DIRECTORY, help="The data directory the runs were trained on: rank anew.")
@click.option("--split", type=click.Choice(["validation", "test"]), default="test", show_default=True)
@click.option("--mask", type=click.Choice(["train", "train+validation"]), default="train", show_default=True,
              help="Items that may not be recommended.")  # fmt: skip
@click.option("--average", type=click.Choice(["with-relevant", "all"]), default="with-relevant", show_default=True,
              help="Over users with relevant items, or over all users.")  # fmt: skip
@click.option("-k", "cutoffs", type=click.IntRange(1), multiple=True, default=(10, 20), show_default=True)
@EVAL_USERS
@click.option(
    "--baselines", is_flag=True, help="Tune popularity, ItemKNN, EASE, GF-CF and Turbo-CF on validation and add them."
)
@click.option("--ease-max-bytes", type=click.IntRange(1), default=EASE_MAX_BYTES, show_default=True,
              help="EASE is left out where it would hold more.")  # fmt: skip
@click.option("--save", is_flag=True, help="Record the report in each run's metrics.json.")
@click.option("--plot", type=FILE, help="Write the learning curves of the runs to this PNG.")
@JSON
@click.pass_context
def evaluate(
    context: click.Context, /, runs: tuple[Path, ...], data: Path | None, split: Any, mask: Any, average: Any,
    cutoffs: tuple[int, ...], eval_users: int | None, *, baselines: bool, ease_max_bytes: int, save: bool,
    plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Report the quality of a RUN, or compare several.

    With --data the whole catalogue is ranked for every user under the protocol that the options name (of much data for
    a drawn sample of users, the same for all models): one run gets its report, several a table, with what students keep
    of a teacher that is among them. Without --data the reports that training left in the runs are compared. Runs that
    differ only in their seed become one line, mean ± standard deviation. Baselines compete under the same protocol; of
    their settings the best validation NDCG@10 wins. A blend of co-teachers that taught some of several runs has a line
    too, where its training reported it under the protocol.

    Example: lowpass evaluate runs/student --data data/citeulike-t --average all

    Example: lowpass evaluate runs/teacher runs/student-* --data data/citeulike-t --baselines --plot curves.png
    """
    if not runs and not baselines:
        raise click.UsageError("Missing RUN: give at least one, or --baselines with --data")
    if plot is not None and not runs:
        raise click.UsageError("--plot draws runs; give at least one")
    if data is None:
        refuse(context, NEED_DATA, "needs --data: without it the reports stored in the runs are compared")
        found = [open_run(path) for path in runs]
        rows, blends = compare_runs(found, average=average), compare_blends(found, average=average)
        text, answer = render_comparison(rows, blends), {"runs": rows, "blends": blends}
    else:
        interactions, protocol = load_interactions(data), Protocol(split, mask, average, cutoffs, eval_users)
        said = describe_sample(interactions, eval_users)
        if said and not as_json:
            click.echo(said)
        opened = [open_run(path, interactions) for path in runs]
        others = report_baselines(interactions, protocol, ease_max_bytes=ease_max_bytes) if baselines else {}
        text, answer = _rank(opened, interactions, protocol, others, save=save)
    if plot is not None:
        plot_curves(list(runs), plot)
    click.echo(json.dumps(answer) if as_json else text)


def _rank(
    runs: Sequence[Run], data: Interactions, protocol: Protocol, baselines: Baselines, *, save: bool
) -> tuple[str, dict[str, Any]]:
    """What is printed for people, and as JSON."""
    reports = [evaluate_run(run, data, protocol, progress=True).as_dict() for run in runs]
    for run, report in zip(runs, reports, strict=True) if save else ():
        _save(run, report, protocol.report_name)
    if len(runs) == 1 and not baselines:
        return _render_report(reports[0]), {"run": str(runs[0].path), **reports[0]}
    cutoff = max(protocol.cutoffs)
    convention = protocol.convention(protocol.sample(data))
    rows = rank_models(runs, reports, {**reports_under(runs, protocol, convention), **baselines}, cutoff)
    answer = {"data": data.name, "convention": convention, "models": rows}
    text = [_render_models(rows, protocol), "", *map(_describe_baseline, baselines, baselines.values())]
    errors = [row["standard_error"] for row in rows if "standard_error" in row]
    text += [convention, *([_describe_errors(errors)] if errors else [])]
    return "\n".join(text), answer | ({"baselines": baselines} if baselines else {})


def _save(run: Run, report: Mapping[str, Any], name: str) -> None:
    """Record a report: beside other cut-offs on the same users, in the place of what was measured on others."""
    recorded = run.metrics.get(name, {})
    if recorded.get("convention", report["convention"]) != report["convention"]:
        click.echo(f"{run.path}: '{name}' was of other users ({recorded['convention']}), and is replaced", err=True)
        recorded = {}
    metrics = {**run.metrics, name: {**recorded, **report}}
    if run.data is not None:
        write_ids(run.path, run.data.user_ids, run.data.item_ids)
    write_run(run.path, run.config, run.user_embeddings, run.item_embeddings, metrics)


def _render_report(report: Mapping[str, Any]) -> str:
    errors = report.get("standard_error", {})
    shown = ((name, value) for name, value in report.items() if name != "standard_error")
    return "\n".join(f"{name:14s} {_render_value(value, errors.get(name))}" for name, value in shown)


def _render_value(value: Any, error: float | None) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text if error is None else f"{text}  (standard error {error:.4f})"


def _describe_errors(errors: Sequence[Mapping[str, float]]) -> str:
    shown = {name: value for name, value in largest_errors(errors).items() if name.startswith(("Recall", "NDCG"))}
    words = ", ".join(f"{name} {error:.4f}" for name, error in shown.items())
    return f"standard errors of this sample, at most: {words}"


def _render_models(rows: Sequence[Mapping[str, Any]], protocol: Protocol) -> str:
    cutoffs = sorted(set(protocol.cutoffs))
    columns = [f"{metric}@{k}" for k in cutoffs for metric in ("Recall", "NDCG")]
    header = ["model", "d", "seeds", *columns, f"Recall@{cutoffs[-1]} kept"]
    lines = []
    for row in rows:
        cells = [row["label"], "–" if row["dim"] is None else str(row["dim"]), str(len(row["seeds"]) or "–")]
        cells += [_mean(row[column], len(row["seeds"])) for column in columns]
        lines.append([*cells, "–" if row["kept"] is None else f"{row['kept']:.1%}"])
    return render_markdown(Table("", header, lines))


def _mean(value: Mapping[str, float], seeds: int) -> str:
    return f"{value['mean']:.4f} ± {value['std']:.4f}" if seeds > 1 else f"{value['mean']:.4f}"


def _describe_baseline(name: str, report: Mapping[str, Any]) -> str:
    if "refused" in report:
        return f"{name}: left out ({report['refused']})"
    settings = "".join(f", {key} {value:g}" for key, value in report["settings"].items())
    cost = f"{report['bytes']:,} bytes, {report['seconds']} s to build"
    return f"{name}{settings} (best of {len(GRIDS[name])}): {cost}"
