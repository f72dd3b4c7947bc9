"""Command `export`: a run, a candidate of a frontier, or a teacher's rivals as bundles."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from export.bundle import (
    ExportError,
    ModelRepository,
    Place,
    Publisher,
    Repository,
    ShardedRepository,
    open_bundle,
    open_manifest,
    open_publisher,
)
from export.bundle.description import describe_bundle
from export.bundle.opening import parse_place
from export.bundle.s3.address import is_s3
from export.commands.options import EXISTING_DIRECTORY, JSON_OPTION

RUN_ONLY = ("data", "teacher", "ann_recall", "max_index_bytes_per_item", "budget", "dtype")
RIVALS_TAKE = ("rivals", "teacher", "repository", "as_json")
LOADING_TAKES = ("to", "to_index", "model", "repository", "ann_recall", "as_json")
Load = Callable[[Path], Any]


@click.command()
@click.argument("source", required=False, type=EXISTING_DIRECTORY)
@click.option(
    "--repository",
    required=True,
    type=parse_place,
    metavar="DIR|URL",
    help="The model repository: a directory, or s3://BUCKET/PREFIX (endpoint and credentials by AWS_*).",
)
@click.option("--model", help="Name of the model in the repository.")
@click.option("--data", type=EXISTING_DIRECTORY, help="Data directory the run was trained on.")
@click.option("--candidate", help="Candidate of the frontier.  [default: the recommended one]")
@click.option("--version", default="", help="Version, a positive integer.  [default: the next free one]")
@click.option("--label", default="stable", show_default=True, help="Label to point to it; '' for none.")
@click.option("--ann-recall", default=0.99, show_default=True, help="What the index must find of the exact top 20.")
@click.option(
    "--max-index-bytes-per-item",
    type=click.FloatRange(0, min_open=True),
    help="Bound on the index file.  [default: none]",
)
@click.option("--budget", default=600.0, show_default=True, type=click.FloatRange(0),
              help="Processor seconds that choosing an index may take; its table says what was left out.")  # fmt: skip
@click.option(
    "--answer-table", default=0, type=click.IntRange(0), help="Store the best N items of every user.  [default: none]"
)
@click.option(
    "--eval-users",
    type=click.IntRange(2),
    help="Measure quality on a drawn sample of at most so many users with held-out items.  [default: all up to 10⁹ "
    "scores, users × items; beyond, as many as make so many, 5,000 or more]",
)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option(
    "--seen",
    type=click.Choice(["train+validation", "all"]),
    default="train+validation",
    show_default=True,
    help="What users already have; 'all' for production, the default keeps test items answerable.",
)
@click.option(
    "--user-shards",
    type=click.IntRange(2),
    metavar="N",
    help="Spread the users over N bundles, each with all items, in shard-K-of-N of the repository.  [default: one]",
)
@click.option(
    "--teacher", help="Teacher's run, or with --rivals its model's name.  [default: the run that the run names]"
)
@click.option("--rivals", type=int, metavar="DIM", help="Make the rivals of --teacher at a student's d = DIM instead.")
@click.option(
    "--to",
    metavar="URL",
    help="Also load the items into an engine: milvus://HOST:PORT/NAME or postgresql://HOST:PORT/DATABASE/NAME.",
)
@click.option("--to-index", default="", help="Index there: flat, ivf_flat, ivf_sq8, hnsw, hnsw_half.")
@JSON_OPTION
@click.pass_context
def export(
    context: click.Context,
    /,
    source: Path | None,
    *,
    as_json: bool,
    rivals: int | None,
    to: str | None,
    to_index: str,
    **options: Any,
) -> None:
    """Turn SOURCE into a bundle in a model repository: a run, or a candidate of a frontier.

    The index of a run is chosen by measurement: exhaustive search, scalar and product codes, inverted lists and graphs
    are built and asked by users' own vectors on this machine; the quickest that finds --ann-recall is taken, or a
    smaller one that is about as quick. A candidate keeps the index with which it was measured. With --rivals there is
    no SOURCE: a teacher that is a bundle already is made small without training, by SVD and by product quantisation,
    at a student's bytes per item.

    Example: lowpass export demo/student --data demo/data --repository demo/models --model student

    Example: lowpass export demo/student --data demo/data --repository demo/models --model student --user-shards 4

    Example: lowpass export runs/frontier --candidate freqd-d16-int8 --repository models --model student

    Example: lowpass export --rivals 16 --teacher teacher --repository demo/models

    With --to and no SOURCE, a version that is in the repository is loaded, and an engine's own name for the stable
    version follows the label:

    Example: lowpass export --repository demo/models --model student --to milvus://127.0.0.1:19530/items
    """
    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    shards = options.pop("user_shards")
    place: Place = options.pop("repository")
    repository = open_publisher(place, shards, say=lambda text: click.echo(text, err=True))
    sharded = repository if isinstance(repository, ShardedRepository) else None
    stored = repository if isinstance(repository, Repository) else ModelRepository(Path(place))
    # All shards have the same items, so that one of them is loaded.
    loaded_from = sharded.shards[0] if sharded else stored
    load = None if to is None else _load_into(loaded_from, to, to_index, options["ann_recall"])
    if to is None and to_index:
        raise ExportError("--to-index: has no effect without --to URL; give both")
    if rivals is not None:
        _report(_export_rivals(stored, rivals, given, options["teacher"]), as_json, listed=True)
        return
    if source is None and load is None:
        raise ExportError("SOURCE: give a run or a frontier directory, or --rivals DIM --teacher MODEL")
    if not options["model"]:
        raise ExportError("--model: give the name of the model in the repository")
    if source is None:
        _refuse(given - set(LOADING_TAKES), "a version that is there is only loaded into the engine of --to")
        model, _, revision = options["model"].partition(":")
        _report([loaded_from.resolve(model, revision or None)], as_json, load=load)
        return
    options["label"] = options["label"] or None
    if options["candidate"] or _is_frontier(source):
        path, name = _export_candidate(source, repository, given, options)
    else:
        path, name = _export_run(source, repository, options), None
    if sharded:
        _report_shards(sharded.bundles(path.parent.name, path.name), as_json, name, load)
    else:
        _report([path], as_json, candidate=name, load=load)
        if is_s3(place) and not as_json:
            click.echo(f"published as {stored.address(path.parent.name, path.name)}")


def _is_frontier(source: Path) -> bool:
    from export.frontier.reading import FILE

    return (source / FILE).is_file()


def _export_run(source: Path, repository: Publisher, options: dict[str, Any]) -> Path:
    from distill.data.interactions import load_interactions
    from distill.run import open_run
    from export.build.publish import ExportOptions, export_run

    data, model, teacher, _ = (options.pop(name) for name in ("data", "model", "teacher", "candidate"))
    if data is None:
        raise ExportError(f"--data: give the data directory on which the run {source} was trained")
    return export_run(
        open_run(source),
        load_interactions(data),
        repository,
        model,
        ExportOptions(**options),
        teacher=open_run(Path(teacher)) if teacher else None,
    )


def _export_candidate(
    source: Path, repository: Publisher, given: set[str], options: dict[str, Any]
) -> tuple[Path, str]:
    from export.build.publish import ExportOptions
    from export.frontier.publishing import publish_candidate, read_choice

    _refuse(given & set(RUN_ONLY), "a candidate has the data, the teacher, the vectors and the index of its frontier")
    choice = read_choice(source, options["candidate"])
    chosen = ExportOptions(
        **{name: options[name] for name in ("version", "label", "answer_table", "seen", "eval_users")}
    )
    return publish_candidate(choice, repository, options["model"], chosen), choice.candidate["name"]


def _export_rivals(repository: Repository, dim: int, given: set[str], teacher: str | None) -> Sequence[Path]:
    from export.build.rivals import build_rivals

    _refuse(given - set(RIVALS_TAKE), "rivals are made of the bundle of --teacher and named after it")
    if not teacher:
        raise ExportError("--teacher: give the name of the teacher's model in the repository")
    return build_rivals(repository, teacher, dim)


def _load_into(repository: Repository, url: str, kind: str, recall: float) -> Load:
    """Check the words about an engine before long work; what is returned loads a bundle."""
    from export.build.engine_load import check_kind, load_version
    from export.bundle.engines import EngineAddress

    address = EngineAddress.parse(url)
    check_kind(address, kind)
    return lambda path: load_version(repository, open_bundle(path), address, kind=kind, recall=recall)


def _refuse(given: set[str], reason: str) -> None:
    for name in sorted(given):
        word = "SOURCE" if name == "source" else f"--{name.replace('_', '-')}"
        raise ExportError(f"{word}: has no effect here, since {reason}; leave it out")


def _report(
    paths: Sequence[Path],
    as_json: bool,
    *,
    listed: bool = False,
    candidate: str | None = None,
    load: Load | None = None,
) -> None:
    manifests = [(path, open_manifest(path)) for path in paths]
    if not as_json:
        click.echo("\n\n".join("\n".join(describe_bundle(path, manifest)) for path, manifest in manifests))
    loaded = None if load is None else load(paths[0])
    if not as_json:
        if loaded is not None:
            click.echo(loaded.describe())
        return
    found = [{"path": str(path), **asdict(manifest)} for path, manifest in manifests]
    if candidate is not None:
        found[0]["candidate"] = candidate
    if loaded is not None:
        found[0]["engine"] = loaded.to_dict()
    click.echo(json.dumps({"bundles": found} if listed else found[0]))


def _report_shards(paths: Sequence[Path], as_json: bool, candidate: str | None, load: Load | None) -> None:
    if as_json:
        _report(paths, as_json, listed=True, candidate=candidate, load=load)
        return
    manifests = [open_manifest(path) for path in paths]
    users = [manifest.counts["users"] for manifest in manifests]
    files = [file.stat() for path in paths for file in path.iterdir()]
    together, here = (
        sum(found.st_size for found in files),
        sum({(found.st_dev, found.st_ino): found.st_size for found in files}.values()),
    )
    linked = "hard links" if here < together else "copies, since this disk has no hard links"
    click.echo("\n".join(describe_bundle(paths[0], manifests[0])))
    click.echo(f"{len(paths)} shards in {paths[0].parents[2]}, each of {min(users):,} to {max(users):,} users")
    click.echo(f"{together:,} bytes together, {here:,} on this disk: index and ids of the items are {linked}")
    if load is not None:
        click.echo(load(paths[0]).describe())
