"""Commands of the offline jobs: train, distill, import-teacher, evaluate, compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from distill.backbones import BACKBONES
from distill.comparison import compare_runs, render_comparison
from distill.data.interactions import load_interactions
from distill.evaluation import Protocol
from distill.evaluation import evaluate as evaluate_embeddings
from distill.figures import plot_curves
from distill.job import Job, run_job
from distill.methods import METHODS, MethodSettings
from distill.run import open_run, write_run
from distill.teacher_import import import_embeddings
from distill.trainer import TrainingOptions

Command = TypeVar("Command", bound=Callable[..., Any])

DIRECTORY = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")

TRAINING = (
    click.option("--backbone", type=click.Choice(list(BACKBONES)), default="bprmf", show_default=True),
    click.option("--epochs", type=click.IntRange(1), default=1000, show_default=True, help="Most epochs."),
    click.option("--batch-size", type=click.IntRange(1), default=2048, show_default=True),
    click.option("--lr", "learning_rate", type=float, default=1e-3, show_default=True, help="Adam's."),
    click.option("--weight-decay", type=float, default=1e-3, show_default=True),
    click.option("--patience", type=click.IntRange(1), default=100, show_default=True,
                 help="Epochs without a better validation NDCG@10 before stopping."),
    click.option("--eval-every", type=click.IntRange(1), default=5, show_default=True, help="In epochs."),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
                 help="CPU threads; on one, the same seed gives the same result."),
    click.option("--tensorboard", type=DIRECTORY, help="Write TensorBoard events here."),
    click.option("--resume", is_flag=True, help="Continue the unfinished run in --out."),
    JSON,
)  # fmt: skip

FEATURE_METHODS = (
    click.option("--weight", "distillation_weight", type=float, default=0.5, show_default=True,
                 help="Factor of the distillation loss."),
    click.option("--projector", type=click.Choice(["linear", "mlp"]), default="linear", show_default=True),
    click.option("--loss", type=click.Choice(["cosine", "l2"]), default="cosine", show_default=True),
    click.option("--variant", type=click.Choice(["bipartite", "cooccurrence"]), default="bipartite",
                 show_default=True, help="FreqD's graph."),
    click.option("--filter", type=click.Choice(["linear", "quadratic"]), default="linear", show_default=True,
                 help="1 − αλ, or its square."),
    click.option("--alpha", type=float, help="α of the filter.  [default: 0.2 bipartite, 0.5 cooccurrence]"),
    click.option("--coefficients", help="c0,c1,… of any polynomial filter, instead of --filter and --alpha."),
    click.option("--order", type=click.Choice(["filter-first", "projector-first"]),
                 help="[default: filter-first bipartite, projector-first cooccurrence]"),
    click.option("--neighbors", "num_neighbors", type=click.IntRange(1), default=5, show_default=True,
                 help="K of the co-occurrence graph."),
    click.option("--keep-prob", type=float, help="Edge dropout keeps with this.  [default: 1 / 0.5]"),
    click.option("--reference", is_flag=True, help="Keep the traps of the public code's co-occurrence graph."),
)  # fmt: skip


def _with(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _training_options(settings: dict[str, Any]) -> TrainingOptions:
    names = TrainingOptions.__dataclass_fields__
    return TrainingOptions(**{name: settings.pop(name) for name in list(settings) if name in names})


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
def train(data: Path, out: Path, dim: int, backbone: str, *, resume: bool, as_json: bool, **settings: Any) -> None:
    """Train a teacher, or a bare student, on the data directory DATA.

    Example: lowpass train data/citeulike-t --out runs/teacher --dim 400
    """
    job = Job(backbone, "scratch", dim, options=_training_options(settings))
    _finish(out, run_job(job, load_interactions(data), out, resume=resume), as_json=as_json)


@click.command()
@click.argument("data", type=DIRECTORY)
@click.option("--teacher", type=DIRECTORY, required=True, help="The teacher's run.")
@click.option("--out", type=DIRECTORY, required=True, help="The run directory to write.")
@click.option("--method", type=click.Choice([name for name, method in METHODS.items() if method.needs_teacher]),
              default="freqd", show_default=True)  # fmt: skip
@click.option("--dim", type=click.IntRange(1), default=20, show_default=True, help="The student's dimension.")
@_with(FEATURE_METHODS)
@_with(TRAINING)
def distill(
    data: Path, teacher: Path, out: Path, method: str, dim: int, backbone: str, *,
    coefficients: str | None, resume: bool, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Distill a student of the teacher run on the data directory DATA.

    Example: lowpass distill data/citeulike-t --teacher runs/teacher --out runs/student --dim 20
    """
    options = _training_options(settings)
    method_settings = MethodSettings(coefficients=_parse_coefficients(coefficients), **settings)
    job = Job(backbone, method, dim, method_settings, options)
    metrics = run_job(job, load_interactions(data), out, teacher=open_run(teacher), resume=resume)
    _finish(out, metrics, as_json=as_json)


def _parse_coefficients(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"'{text}' is not a list of numbers such as 1,-0.5", param_hint="--coefficients"
        ) from error


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
