"""Commands of the offline jobs: train, distill, import-teacher, evaluate, compare."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from distill.backbones import BACKBONES
from distill.data.interactions import load_interactions
from distill.evaluation.comparison import compare_runs
from distill.evaluation.protocol import Protocol
from distill.evaluation.protocol import evaluate as evaluate_embeddings
from distill.methods import METHODS, Method
from distill.methods.composition import build_method_settings
from distill.methods.projector import PROJECTORS
from distill.report.figures import plot_curves
from distill.report.tables import render_comparison
from distill.run import open_run, write_run
from distill.settings import build_settings, describe_settings
from distill.training.job import RANDOM, RECOMMENDED_METHOD, Job, run_job, training_options
from distill.training.teacher_import import import_embeddings
from distill.training.trainer import TrainingOptions

Command = TypeVar("Command", bound=Callable[..., Any])

DIRECTORY = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")

SETTING = "NAME=VALUE"

TRAINING = (
    click.option("--backbone", type=click.Choice(list(BACKBONES)), help="[default: bprmf]"),
    click.option("--backbone-set", multiple=True, metavar=SETTING, help="A setting of the backbone; may be repeated."),
    click.option("--epochs", type=click.IntRange(1), help="Most epochs.  [default: 1000]"),
    click.option("--batch-size", type=click.IntRange(1),
                 help="Interactions a step, or users for a response method.  [default: 2048 / 256]"),
    click.option("--lr", "learning_rate", type=float, help="Adam's.  [default: 1e-3; response methods 5e-3]"),
    click.option("--schedule", type=click.Choice(["constant", "cosine"]),
                 help="Of the learning rate; cosine ends at 0 after --epochs.  [default: constant]"),
    click.option("--weight-decay", type=float, help="[default: 1e-3; response methods 0]"),
    click.option("--patience", type=click.IntRange(1),
                 help="Epochs without a better validation NDCG@10 before stopping.  [default: 100]"),
    click.option("--eval-every", type=click.IntRange(1), help="In epochs.  [default: 5]"),
    click.option("--max-seconds", type=float, help="Stop after this much training time.  [default: no limit]"),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
                 help="CPU threads; on one, the same seed gives the same result."),
    click.option("--tensorboard", type=DIRECTORY, help="Write TensorBoard events here."),
    click.option("--resume", is_flag=True, help="Continue the unfinished run in --out."),
    JSON,
)  # fmt: skip

METHOD_SETTINGS = (
    click.option("--weight", "distillation_weight", type=float, help="Factor of the distillation loss."),
    click.option("--projector", type=click.Choice(list(PROJECTORS)), help="Of feature methods.  [default: linear]"),
    click.option("--loss", type=click.Choice(["cosine", "l2"]), help="Of feature methods.  [default: cosine]"),
    click.option("--variant", type=click.Choice(["bipartite", "cooccurrence"]),
                 help="FreqD's graph.  [default: bipartite]"),
    click.option("--filter", type=click.Choice(["linear", "quadratic"]), help="1 − αλ, or its square."),
    click.option("--alpha", type=float, help="α of the filter.  [default: 0.2 bipartite, 0.5 cooccurrence]"),
    click.option("--coefficients", help="c0,c1,… of any polynomial filter, instead of --filter and --alpha."),
    click.option("--order", type=click.Choice(["filter-first", "projector-first"]),
                 help="[default: filter-first bipartite, projector-first cooccurrence]"),
    click.option("--neighbors", "num_neighbors", type=click.IntRange(1), help="K of the co-occurrence graph."),
    click.option("--keep-prob", type=float, help="Edge dropout keeps with this.  [default: 1 / 0.5]"),
    click.option("--reference", is_flag=True, default=None, help="Make the public code's choices."),
    click.option("--set", "more", multiple=True, metavar=SETTING,
                 help="Any setting of the method (see 'lowpass methods'); may be repeated. In a composition "
                      "PART.NAME=VALUE sets it for one part."),
)  # fmt: skip


def _with(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _parse_settings(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"'{pair}' is not {SETTING}", param_hint=option)
        found[name.replace("-", "_")] = value
    return found


def _build_job(method: str, dim: int, backbone: str, backbone_set: tuple[str, ...], given: dict[str, Any]) -> Job:
    """Sort what was given into training options and settings of the method; None is not given."""
    known = {name: value for name, value in given.items() if value is not None}
    options = {name: known.pop(name) for name in list(known) if name in TrainingOptions.__dataclass_fields__}
    start = known.pop("start", RANDOM)
    more = _parse_settings(known.pop("more", ()), "--set")
    return Job(
        backbone,
        method,
        dim,
        build_method_settings(method, {**known, **more}),
        training_options(backbone, method, **options),
        start,
        build_settings(BACKBONES[backbone].Settings, _parse_settings(backbone_set, "--backbone-set"), backbone),
    )


def _finish(out: Path, metrics: Mapping[str, Any], *, as_json: bool) -> None:
    plot_curves([out], out / "curve.png")
    if as_json:
        click.echo(json.dumps({"run": str(out), **metrics}))
        return
    done = metrics["training"]
    click.echo(f"run {out}: best epoch {done['best_epoch']} of {done['epochs']}, {done['seconds']} s of training")
    _echo_quality(metrics)


def _echo_quality(metrics: Mapping[str, Any]) -> None:
    for split in ("validation", "test", "test_all_users"):
        if split in metrics:
            report = metrics[split]
            quality = f"Recall@20 {report['Recall@20']:.4f}  NDCG@20 {report['NDCG@20']:.4f}"
            click.echo(f"{split:15s} {quality}  ({report['convention']})")


@click.command()
@click.argument("data", type=DIRECTORY)
@click.option("--out", type=DIRECTORY, required=True, help="The run directory to write.")
@click.option("--dim", type=click.IntRange(1), default=64, show_default=True, help="Embedding dimension.")
@_with(TRAINING)
def train(
    data: Path, out: Path, dim: int, backbone: str | None, backbone_set: tuple[str, ...], *,
    resume: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a teacher, or a bare student, on the data directory DATA.

    Example: lowpass train data/citeulike-t --out runs/teacher --dim 400
    """
    job = _build_job("scratch", dim, backbone or "bprmf", backbone_set, given)
    _finish(out, run_job(job, load_interactions(data), out, resume=resume), as_json=as_json)


@click.command()
@click.argument("data", type=DIRECTORY)
@click.option("--teacher", type=DIRECTORY, required=True, help="The teacher's run.")
@click.option("--out", type=DIRECTORY, required=True, help="The run directory to write.")
@click.option("--method", help="One, or several such as freqd+ce: see 'lowpass methods'.  [default: freqd]")
@click.option("--recommended", is_flag=True,
              help=f"The method that RESULTS.md finds best, now {RECOMMENDED_METHOD}.")  # fmt: skip
@click.option("--dim", type=click.IntRange(1), default=20, show_default=True, help="The student's dimension.")
@click.option("--start", help="random, svd (of the teacher's scores), or a run to go on from.  [default: random]")
@_with(METHOD_SETTINGS)
@_with(TRAINING)
def distill(
    data: Path, teacher: Path, out: Path, method: str | None, dim: int, backbone: str | None,
    backbone_set: tuple[str, ...], *, recommended: bool, resume: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Distill a student of the teacher run on the data directory DATA.

    Example: lowpass distill data/citeulike-t --teacher runs/teacher --out runs/student --dim 20 --recommended
    """
    if recommended and method:
        raise click.UsageError("--recommended chooses --method itself; give one or the other")
    method = method or (RECOMMENDED_METHOD if recommended else "freqd")
    if not METHODS.get(method, Method).needs_teacher:
        raise click.BadParameter(f"'{method}' learns from no teacher; use 'lowpass train'", param_hint="--method")
    job = _build_job(method, dim, backbone or "bprmf", backbone_set, given)
    metrics = run_job(job, load_interactions(data), out, teacher=open_run(teacher), resume=resume)
    _finish(out, metrics, as_json=as_json)


@click.command()
@JSON
def methods(*, as_json: bool) -> None:
    """List the distillation methods with their settings and defaults.

    Example: lowpass methods
    """
    if as_json:
        click.echo(json.dumps({"methods": {name: _describe(method) for name, method in METHODS.items()}}))
        return
    for name, method in METHODS.items():
        described = _describe(method)
        click.echo(f"{name:10s} {described['summary']}")
        for title in ("settings", "training"):
            text = ", ".join(f"{key}={value}" for key, value in described[title].items())
            if text:
                click.echo(textwrap.fill(f"{title}: {text}", 110, initial_indent=" " * 11, subsequent_indent=" " * 13))


def _describe(method: type[Method]) -> dict[str, Any]:
    """The paragraph that opens a method's module, its settings and its training defaults."""
    summary = (sys.modules[method.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    settings = describe_settings(method.Settings)
    return {"summary": summary, "settings": settings, "training": dict(method.training_defaults)}


@click.command("import-teacher")
@click.argument("data", type=DIRECTORY)
@click.option("--users", type=FILE, required=True, help=".npy in row order, or Parquet with id and embedding.")
@click.option("--items", type=FILE, required=True, help="Likewise.")
@click.option("--out", type=DIRECTORY, required=True, help="The run directory to write.")
@click.option("--name", default="imported", show_default=True, help="Recorded as the backbone.")
@JSON
def import_teacher(data: Path, users: Path, items: Path, out: Path, name: str, *, as_json: bool) -> None:
    """Take a teacher's embeddings from outside, as a run that distill and export accept.

    Parquet files have a column 'id' and a column 'embedding' (a list of numbers); rows may come in any order.
    The score of a user and an item must be the inner product of their embeddings.

    Example: lowpass import-teacher data/mine --users users.parquet --items items.npy --out runs/teacher
    """
    interactions = load_interactions(data)
    metrics = import_embeddings(interactions, users, items, out, name)
    if as_json:
        click.echo(json.dumps({"run": str(out), **metrics}))
    else:
        click.echo(f"run {out}: {len(interactions.user_ids)} users, {len(interactions.item_ids)} items")
        _echo_quality(metrics)


@click.command()
@click.argument("run", type=DIRECTORY)
@click.option("--data", type=DIRECTORY, required=True, help="The data directory it was trained on.")
@click.option("--split", type=click.Choice(["validation", "test"]), default="test", show_default=True)
@click.option("--mask", type=click.Choice(["train", "train+validation"]), default="train", show_default=True,
              help="Items that may not be recommended.")  # fmt: skip
@click.option("--average", type=click.Choice(["with-relevant", "all"]), default="with-relevant", show_default=True,
              help="Over users with relevant items, or over all users.")  # fmt: skip
@click.option("-k", "cutoffs", type=click.IntRange(1), multiple=True, default=(10, 20), show_default=True)
@click.option("--save", is_flag=True, help="Record the report in the run's metrics.json.")
@JSON
def evaluate(
    run: Path,
    data: Path,
    split: Any,
    mask: Any,
    average: Any,
    cutoffs: tuple[int, ...],
    *,
    save: bool,
    as_json: bool,
) -> None:
    """Rank the whole catalogue for every user and report the quality of a run.

    Example: lowpass evaluate runs/student --data data/citeulike-t --average all
    """
    opened, interactions = open_run(run), load_interactions(data)
    opened.require_same_data(interactions)
    protocol = Protocol(split, mask, average, cutoffs)
    embeddings = (opened.user_embeddings, opened.item_embeddings)
    report = evaluate_embeddings(*embeddings, interactions, protocol, progress=True).as_dict()
    if save:
        name = _report_name(protocol)
        known = {**opened.metrics.get(name, {}), **report}
        write_run(run, opened.config, *embeddings, {**opened.metrics, name: known})
    if as_json:
        click.echo(json.dumps({"run": str(run), **report}))
        return
    for name, value in report.items():
        click.echo(f"{name:14s} {value:.4f}" if isinstance(value, float) else f"{name:14s} {value}")


def _report_name(protocol: Protocol) -> str:
    """The key in `metrics.json`: reports under different conventions must never replace one another."""
    masked = "_validation_masked" if protocol.mask == "train+validation" else ""
    return protocol.split + masked + ("_all_users" if protocol.average == "all" else "")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=DIRECTORY)
@click.option("--plot", type=FILE, help="Write the learning curves to this PNG.")
@click.option("--average", type=click.Choice(["with-relevant", "all"]), default="with-relevant", show_default=True)
@JSON
def compare(runs: tuple[Path, ...], plot: Path | None, average: str, *, as_json: bool) -> None:
    """Table of several runs; runs that differ only in their seed become one line, mean ± standard deviation.

    Example: lowpass compare runs/teacher runs/scratch-* runs/freqd-* --plot curves.png
    """
    rows = compare_runs([open_run(path) for path in runs], average=average)
    if plot is not None:
        plot_curves(list(runs), plot)
    click.echo(json.dumps({"runs": rows}) if as_json else render_comparison(rows))
