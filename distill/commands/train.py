"""Commands `train` and `distill`: from interactions to a run, alone or from a teacher's run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click

from distill.backbones import BACKBONES
from distill.commands.options import DIRECTORY, EVAL_USERS, FILE, JSON, SETTING, parse_pairs, refuse, with_options
from distill.data.interactions import Interactions, load_interactions
from distill.distributed.ranks import is_started_by_torchrun, open_ranks
from distill.evaluation.comparison import SHOWN
from distill.evaluation.drift import LEAST_OVERLAP, Drift
from distill.evaluation.protocol import describe_sample
from distill.methods import METHODS, Method
from distill.methods.co_teachers import NONE, describe_blend
from distill.methods.projector import ProjectorKind
from distill.methods.stored_lists import say_lists
from distill.report.figures import plot_curves
from distill.run import Run, open_run
from distill.training.job import NO_TEACHER, RECOMMENDED_METHOD, Job, build_job, large_defaults, run_job
from distill.training.teacher_import import import_embeddings
from distill.training.trainer import OptimizerKind

TRAINING = (
    click.option("--backbone", type=click.Choice(list(BACKBONES)), default="bprmf", show_default=True),
    click.option("--backbone-set", "backbone_settings", multiple=True, metavar=SETTING, callback=parse_pairs,
                 help="A setting of the backbone; may be repeated."),
    click.option("--continue-from", type=DIRECTORY, metavar="RUN",
                 help="Go on from yesterday's run of the same backbone, method and dimension: rows are found by their "
                      "ids, new users and items start from their neighbours, and epochs are fewer."),
    click.option("--epochs", type=click.IntRange(1),
                 help="At most so many.  [default: 1000; 30 with --continue-from; 10, or 3, of ce and rcekd where "
                      "users × items exceed 5·10⁹]"),
    click.option("--batch-size", type=click.IntRange(1),
                 help="Interactions a step, or users for a response method.  [default: 2048 / 256]"),
    click.option("--lr", "learning_rate", type=float, help="Adam's.  [default: 1e-3; response methods 5e-3]"),
    click.option("--schedule", type=click.Choice(["constant", "cosine"]),
                 help="Of the learning rate; cosine ends at 0 after --epochs.  [default: constant; cosine with "
                      "--continue-from]"),
    click.option("--weight-decay", type=float, help="[default: 1e-3; response methods 0]"),
    click.option("--optimizer", type=click.Choice(get_args(OptimizerKind)),
                 help="row-adam moves the rows of a batch alone: an epoch takes time by its interactions, not also by "
                      "users and items. auto: from 200,000 of these on.  [default: auto]"),
    click.option("--patience", type=click.IntRange(1),
                 help="Epochs without a better validation NDCG@10 before stopping.  [default: 100; 15 with "
                      "--continue-from]"),
    click.option("--eval-every", type=click.IntRange(1),
                 help="In epochs.  [default: 5; 1 where --epochs is 10 by default]"),
    EVAL_USERS,
    click.option("--max-seconds", type=float, help="Stop after this much training time.  [default: no limit]"),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
                 help="CPU threads; on one, the same seed gives the same result."),
    click.option("--tensorboard", type=DIRECTORY, help="Write TensorBoard events here."),
    click.option("--keep-checkpoints", type=click.IntRange(0),
                 help="Earlier states to keep in the run, for students that learn by hetcomp.  [default: 0]"),
    click.option("--resume", is_flag=True, help="Continue the unfinished run in --out."),
    click.option("--sharded", is_flag=True,
                 help="Share one table among the ranks that torchrun starts, on one machine or many."),
    click.option("--table-optimizer", type=click.Choice(["adagrad", "sgd"]),
                 help="Of a sharded table; --lr is the projector's.  [default: adagrad, row-wise]"),
    click.option("--table-lr", "table_learning_rate", type=float, help="Of a sharded table.  [default: 0.1]"),
    click.option("--checkpoint-seconds", type=click.FloatRange(0),
                 help="From one checkpoint of a sharded training to the next.  [default: 60]"),
    click.option("--restarts", type=int, default=0, envvar="TORCHELASTIC_RESTART_COUNT", hidden=True,
                 help="How often torchrun has started the ranks again: then they resume."),
    JSON,
)  # fmt: skip

SHARDING = {"table_optimizer", "table_learning_rate", "checkpoint_seconds"}
"""Parameters that mean something with --sharded alone."""

METHOD_SETTINGS = (
    click.option("--weight", "distillation_weight", type=float, help="Factor of the distillation loss."),
    click.option("--projector", type=click.Choice(get_args(ProjectorKind)),
                 help="Of feature methods.  [default: linear]"),
    click.option("--loss", type=click.Choice(["cosine", "l2"]), help="Of feature methods.  [default: cosine]"),
    click.option("--variant", type=click.Choice(["bipartite", "cooccurrence"]),
                 help="FreqD's graph.  [default: bipartite]"),
    click.option("--filter", type=click.Choice(["linear", "quadratic"]), help="FreqD's: 1 − αλ, or its square."),
    click.option("--alpha", type=float, help="α of FreqD's filter.  [default: 0.2 bipartite, 0.5 cooccurrence]"),
    click.option("--coefficients", help="c0,c1,… of any polynomial filter, instead of --filter and --alpha."),
    click.option("--order", type=click.Choice(["filter-first", "projector-first"]),
                 help="[default: filter-first bipartite, projector-first cooccurrence]"),
    click.option("--neighbors", "num_neighbors", type=click.IntRange(1), help="K of the co-occurrence graph."),
    click.option("--keep-prob", type=float, help="Edge dropout keeps with this.  [default: 1 / 0.5]"),
    click.option("--reference", is_flag=True, default=None, help="Make the public code's choices."),
    click.option("--set", "more", multiple=True, metavar=SETTING, callback=parse_pairs,
                 help="Any setting of the method (see 'lowpass methods'); may be repeated. In a composition "
                      "PART.NAME=VALUE sets it for one part."),
)  # fmt: skip

IMPORTING = {"data", "out", "from_embeddings", "users_ids", "items_ids", "name", "eval_users", "as_json"}
"""Parameters of `train` that mean something where nothing is trained."""


@click.command()
@click.argument("data", type=DIRECTORY)
@click.option("--out", type=DIRECTORY, required=True, help="The run directory to write.")
@click.option("--dim", type=click.IntRange(1), default=64, show_default=True, help="Embedding dimension.")
@click.option("--from-embeddings", type=(FILE, FILE), metavar="USERS ITEMS",
              help="Train nothing: take embeddings from outside, .npy in the order of the data's rows, or Parquet with "
                   "columns id and embedding in any order.")  # fmt: skip
@click.option("--users-ids", type=FILE, help="Whose row is whose in a .npy of users: an id a line, .npy, or a column "
              "id of CSV or Parquet. Without it the order of the rows is taken on trust.")  # fmt: skip
@click.option("--items-ids", type=FILE, help="The same of items.")
@click.option("--name", default="imported", show_default=True, help="Backbone recorded for --from-embeddings.")
@with_options(TRAINING)
@click.pass_context
def train(
    context: click.Context, /, data: Path, out: Path, from_embeddings: tuple[Path, Path] | None,
    name: str, backbone: str, backbone_settings: dict[str, str], *, users_ids: Path | None, items_ids: Path | None,
    sharded: bool, restarts: int, resume: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a teacher, or a bare student, on the data directory DATA.

    With --from-embeddings a teacher that was trained elsewhere becomes a run that distill and export accept. The
    score of a user and an item must be the inner product of their embeddings. A .npy has no ids, and
    rows in another order than the data's make a teacher that knows nothing, without an error: give --users-ids and
    --items-ids, or compare the quality with that of popularity, which is printed beside it.

    Example: lowpass train data/citeulike-t --out runs/teacher --dim 400

    Example: lowpass train data/mine --from-embeddings users.parquet items.npy --items-ids items.txt --out runs/teacher

    Example: lowpass train data/today --continue-from runs/yesterday --dim 400 --out runs/today
    """
    if from_embeddings is not None:
        refuse(context, set(context.params) - IMPORTING, "means nothing with --from-embeddings: nothing is trained")
        eval_users = given["eval_users"]
        interactions = _load(data, eval_users, as_json)
        metrics = import_embeddings(
            interactions, *from_embeddings, out, name,
            users_ids=users_ids, items_ids=items_ids, eval_users=eval_users, progress=True,
        )  # fmt: skip
        if not as_json:
            _say_what_was_understood(metrics["import"])
        _report(out, metrics, f"{interactions.num_users} users, {interactions.num_items} items", as_json)
        return
    refuse(context, {"users_ids", "items_ids", "name"}, "is for --from-embeddings; give those, or leave it out")
    sharding = _take_sharding(context, given, sharded=sharded)
    job = build_job("scratch", given, backbone=backbone, backbone_settings=backbone_settings)
    if sharded:
        _run_sharded(job, sharding, data, out, None, resume=resume or restarts > 0, as_json=as_json)
        return
    _finish(out, run_job(job, _load(data, job.options.eval_users, as_json), out, resume=resume), as_json=as_json)


def _load(data: Path, eval_users: int | None, as_json: bool) -> Interactions:
    """The data; where quality is to be measured on a sample of its users, that is said first."""
    interactions = load_interactions(data)
    said = describe_sample(interactions, eval_users)
    if said and not as_json:
        click.echo(said)
    return interactions


@click.command()
@click.argument("data", type=DIRECTORY)
@click.option(
    "--teacher",
    type=DIRECTORY,
    required=True,
    help="The teacher's run; 'none' where the co-teachers, who need no training, are to teach alone.",
)
@click.option("--out", type=DIRECTORY, required=True, help="The run directory to write.")
@click.option(
    "--method",
    default=RECOMMENDED_METHOD,
    show_default=True,
    help="One, or several such as freqd+ce: see 'lowpass methods'. The default is what RESULTS.md finds best.",
)
@click.option("--dim", type=click.IntRange(1), default=20, show_default=True, help="The student's dimension.")
@click.option(
    "--co-teachers",
    metavar="SPEC",
    help="Who is blended with the teacher, for methods that learn lists: auto (what is best on validation), "
    "none, names (turbocf,ease: weights chosen on validation), or names with weights "
    "(turbocf=0.5,ease=0.25).  [default: auto for ce and rcekd, else none]",
)
@click.option(
    "--start",
    help="random, svd (of the teacher's scores), or a run to go on from.  [default: random; svd "
    "where users × items exceed 5·10⁹, for ce and rcekd]",
)
@with_options(METHOD_SETTINGS)
@with_options(TRAINING)
@click.pass_context
def distill(
    context: click.Context, /, data: Path, teacher: Path, out: Path, method: str, more: dict[str, str], backbone: str,
    backbone_settings: dict[str, str], *, sharded: bool, restarts: int, resume: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Distill a student of the teacher run on the data directory DATA.

    Example: lowpass distill data/citeulike-t --teacher runs/teacher --out runs/student --dim 20

    Example: lowpass distill data/citeulike-t --teacher none --out runs/student

    Example: lowpass distill data/citeulike-t --teacher runs/teacher --out runs/freqd --method freqd --alpha 0.5

    Example: lowpass distill data/today --teacher runs/today --continue-from runs/student-yesterday --out runs/student
    """
    if not METHODS.get(method, Method).needs_teacher:
        raise click.BadParameter(f"'{method}' learns from no teacher; use 'lowpass train'", param_hint="--method")
    sharding = _take_sharding(context, given, sharded=sharded)
    if sharded and given["co_teachers"] is None:
        given["co_teachers"] = NONE  # a blend ranks the whole catalogue in one place
    job = build_job(method, {**given, **more}, backbone=backbone, backbone_settings=backbone_settings)
    if sharded:
        taught_by = None if teacher == NO_TEACHER else teacher
        _run_sharded(job, sharding, data, out, taught_by, resume=resume or restarts > 0, as_json=as_json)
        return
    run = None if teacher == NO_TEACHER else open_run(teacher)
    interactions = _load(data, job.options.eval_users, as_json)
    is_continued = given["continue_from"] is not None
    usual = large_defaults(method, interactions, has_teacher=run is not None, is_continued=is_continued)
    if chosen := {name: value for name, value in usual.items() if given[name] is None}:
        job = build_job(method, {**given, **chosen, **more}, backbone=backbone, backbone_settings=backbone_settings)
        if not as_json:
            click.echo(f"many users and items: {', '.join(f'{name} {value}' for name, value in chosen.items())}")
    metrics = run_job(job, interactions, out, teacher=run, resume=resume)
    if not as_json:
        _say_who_taught(metrics, run)
        if made := metrics.get("lists", metrics.get("blend", {}).get("lists")):
            click.echo(f"lists: {say_lists(made, interactions.num_users, interactions.num_items)}")
    _finish(out, metrics, as_json=as_json)


def _take_sharding(context: click.Context, given: dict[str, Any], *, sharded: bool) -> dict[str, Any]:
    """Take what sharding adds out of the given parameters, and see that ranks of torchrun are to share a table."""
    if not sharded:
        refuse(context, SHARDING, "is for --sharded; give that, or leave it out")
        if is_started_by_torchrun():
            raise click.UsageError("torchrun started this, and each rank would train alone: give --sharded")
    taken = {name: given.pop(name) for name in SHARDING}
    return {name: value for name, value in taken.items() if value is not None}


def _run_sharded(
    job: Job, sharding: Mapping[str, Any], data: Path, out: Path, teacher: Path | None, *, resume: bool, as_json: bool
) -> None:
    with open_ranks(job.options.device) as ranks:
        from distill.distributed.job import ShardedOptions, run_sharded_job  # TorchRec takes seconds

        options = ShardedOptions(**sharding)
        metrics = run_sharded_job(job, options, data, out, ranks, teacher=teacher, resume=resume)
        if ranks.is_first:
            _finish(out, metrics, as_json=as_json)


def _say_who_taught(metrics: Mapping[str, Any], teacher: Run | None) -> None:
    """A line a model that taught: its quality, to be held against the student's."""
    taught = [] if teacher is None else [("teacher", teacher.metrics)]
    if "blend" in metrics:
        blend = metrics["blend"]
        click.echo(f"taught by {describe_blend(blend['weights'])}")
        for name, reason in blend["left_out"].items():
            click.echo(f"without {name}: {reason}")
        taught.append(("blend", blend))
    for name, reports in taught:
        for split in ("validation", "test"):
            if split in reports:
                click.echo(f"{f'{name}, {split}':20s} {_quality(reports[split])}")


def _finish(out: Path, metrics: Mapping[str, Any], *, as_json: bool) -> None:
    plot_curves([out], out / "curve.png")
    if "continued" in metrics and not as_json:
        _say_what_was_continued(metrics["continued"], metrics["drift"])
    done = metrics["training"]
    _report(
        out,
        metrics,
        f"best epoch {done['best_epoch']} of {done['epochs']}, {done['seconds']} s of training by {done['optimizer']}",
        as_json,
    )


def _say_what_was_continued(continued: Mapping[str, Any], drift: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{continued[f'{side}_kept']:,} {side} kept, {continued[f'{side}_new']:,} new"
                       for side in ("users", "items"))  # fmt: skip
    click.echo(f"continued from {continued['from']}: {counts}")
    found = Drift(**drift)
    click.echo(f"drift: {found}")
    if continued["doubt"]:
        click.echo(f"warning: {continued['doubt']}", err=True)
    if found.is_catastrophic:
        click.echo(
            f"warning: lists share less than {LEAST_OVERLAP:.0%} with yesterday's: look at the data, or train from "
            "nothing, without --continue-from", err=True,
        )  # fmt: skip


def _say_what_was_understood(understood: Mapping[str, Any]) -> None:
    for side in ("users", "items"):
        click.echo(f"{side}: {understood[side]}")
    for split in ("validation", "test"):
        if split in understood["popularity"]:
            click.echo(f"{f'popularity, {split}':20s} {_quality(understood['popularity'][split])}")
    if understood["doubt"]:
        click.echo(f"warning: {understood['doubt']}", err=True)


def _report(out: Path, metrics: Mapping[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"run": str(out), **metrics}))
        return
    click.echo(f"run {out}: {words}")
    for split in ("validation", "test", "test_all_users"):
        if split in metrics:
            report = metrics[split]
            click.echo(f"{split:20s} {_quality(report)}  ({report['convention']})")


def _quality(report: Mapping[str, Any]) -> str:
    errors = report.get("standard_error", {})
    return "  ".join(
        f"{name} {report[name]:.4f}" + (f" (standard error {errors[name]:.4f})" if name in errors else "")
        for name in SHOWN
    )
