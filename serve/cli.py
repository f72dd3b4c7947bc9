"""`lowpass serve` and `lowpass query`; nothing heavy is imported until a command runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from serve.client import RecommenderClient
    from serve.client_answers import RecommendationList, ServerInfo
    from serve.shadow import ShadowRule


class Shares(click.ParamType[tuple[str, float]]):
    """`NAME=SHARE`, as a pair."""

    name = "NAME=SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Read one."""
        if isinstance(value, tuple):
            return value
        name, equals, share = str(value).rpartition("=")
        try:
            number = float(share)
        except ValueError:
            number = -1.0
        if not equals or not name or not 0 < number <= 1:
            self.fail(f"{value!r}: give NAME=SHARE with a share above 0, at most 1, e.g. canary=0.05", param, ctx)
        return name, number


SHARES = Shares()


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), help="Root of a model repository.")
@click.option("--fake", is_flag=True, help="Serve a made-up model instead, to try a client.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME[:LABEL]",
    help="Serve this model, at this label or version (default: stable); repeatable, the first is the default"
    " model. Without it: every model.",
)
@click.option("--address", default="127.0.0.1:50051", show_default=True, help="For gRPC; port 0: any free one.")
@click.option("--metrics-address", default="127.0.0.1:9464", show_default=True, help="For Prometheus.")
@click.option("--admin-address", default="", help="For changing models while serving; without it: not possible.")
@click.option(
    "--watch",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Seconds between looks at the repository for moved labels; 0: never.",
)
@click.option(
    "--split",
    "splits",
    type=SHARES,
    multiple=True,
    metavar="MODEL:LABEL=SHARE",
    help="Let a label answer this share of a model's requests, by user; repeatable.",
)
@click.option(
    "--shadow",
    "shadows",
    type=SHARES,
    multiple=True,
    metavar="MODEL:OTHER[:LABEL]=SHARE",
    help="Let another model answer this share of a model's requests again, unseen, to measure how far both agree.",
)
@click.option(
    "--threads",
    "workers",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Threads that work on requests.",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, 100_000),
    default=256,
    show_default=True,
    help="Requests in work or waiting; more are refused.",
)
@click.option(
    "--drain-wait",
    type=click.FloatRange(0, 600),
    default=1.0,
    show_default=True,
    help="Seconds between NOT_SERVING and refusing when stopping: one period of the health probe.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 600),
    default=20.0,
    show_default=True,
    help="Seconds that requests in flight may still take when stopping.",
)
@click.option("--reflection/--no-reflection", default=True, help="Offer gRPC server reflection.")
@click.option("--verify/--no-verify", default=True, help="Read every byte of a bundle before serving it.")
@click.option(
    "--ready-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the addresses here once ready."
)
def serve(
    repository: Path | None,
    fake: bool,
    models: tuple[str, ...],
    max_in_flight: int,
    splits: tuple[tuple[str, float], ...],
    shadows: tuple[tuple[str, float], ...],
    ready_file: Path | None,
    **options: Any,
) -> int:
    """Answer top-k queries over gRPC, with Prometheus metrics, until SIGTERM.

    Example: lowpass serve --repository models --model student --address 127.0.0.1:50051
    """
    if fake == (repository is not None):
        raise click.UsageError("give either --repository ROOT or --fake")
    if fake and (models or splits or shadows or options["admin_address"] or options["watch"]):
        raise click.UsageError("--model, --split, --shadow, --admin-address and --watch need --repository")
    if ready_file is not None and not ready_file.absolute().parent.is_dir():
        raise click.UsageError(f"--ready-file {ready_file}: its directory does not exist: make it first")
    # Before NumPy and FAISS come in: serving threads are the parallelism, native pools would only fight them.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # One more series per child of a histogram, which no query needs; read when prometheus_client is imported.
    os.environ.setdefault("PROMETHEUS_DISABLE_CREATED_SERIES", "True")
    from serve.limits import Limits
    from serve.server import ServerOptions, run

    limits = Limits(max_in_flight=max_in_flight)
    options |= {"splits": _read_splits(splits), "shadows": _read_shadows(shadows), "ready_file": ready_file}
    return run(ServerOptions(repository=repository, models=models, limits=limits, **options))


def _read_splits(given: tuple[tuple[str, float], ...]) -> dict[str, dict[str, float]]:
    splits: dict[str, dict[str, float]] = {}
    for name, share in given:
        model, colon, label = name.partition(":")
        if not colon:
            raise click.UsageError(f"--split {name}={share:g}: give MODEL:LABEL=SHARE, e.g. student:canary=0.05")
        splits.setdefault(model, {})[label] = share
    return splits


def _read_shadows(given: tuple[tuple[str, float], ...]) -> dict[str, ShadowRule]:
    from serve.shadow import ShadowRule

    shadows = {}
    for name, share in given:
        model, colon, other = name.partition(":")
        if not colon:
            raise click.UsageError(f"--shadow {name}={share:g}: give MODEL:OTHER=SHARE, e.g. student:teacher=0.1")
        shadow, _, revision = other.partition(":")
        shadows[model] = ShadowRule(shadow, revision, share)
    return shadows


def _split_ids(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


@click.command()
@click.option("--target", default="127.0.0.1:50051", show_default=True, help="Where the server is.")
@click.option("--user", help="Recommend for this user.")
@click.option("--history", callback=_split_ids, metavar="ID,ID,…", help="Recommend for someone with these items.")
@click.option("--similar", metavar="ITEM", help="List the items nearest to this one.")
@click.option("--info", is_flag=True, help="Show what the server serves.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="How many items.")
@click.option("--model", default="", metavar="NAME[:LABEL]", help="Ask this model.")
@click.option("--exclude", callback=_split_ids, metavar="ID,ID,…", help="Never answer with these items.")
@click.option("--allow", callback=_split_ids, metavar="ID,ID,…", help="Answer only with these items.")
@click.option("--category", multiple=True, help="Answer only with items of this category; repeatable.")
@click.option("--min-score", type=float, help="Leave out what scores less.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Skip this many of the best.")
@click.option("--include-seen", is_flag=True, help="Also answer with what the user already has.")
@click.option("--exact", is_flag=True, help="Score every item.")
@click.option("--fallback", is_flag=True, help="Answer the unknown with what is popular.")
@click.option("--timeout", type=click.FloatRange(0.001), default=5.0, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def query(
    target: str,
    user: str | None,
    history: tuple[str, ...] | None,
    similar: str | None,
    info: bool,
    timeout: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask a running server.

    Example: lowpass query --user user-7 -k 5
    """
    if sum((user is not None, history is not None, similar is not None, info)) != 1:
        raise click.UsageError("give exactly one of --user, --history, --similar and --info")
    from serve.client import RecommenderClient

    with RecommenderClient(target, timeout) as client:
        if info:
            _print_info(client.info(), as_json)
            return
        answer = _ask(client, user, history, similar, options)
    if as_json:
        click.echo(json.dumps(asdict(answer), ensure_ascii=False))
        return
    _print_list(answer, options["k"])


def _ask(
    client: RecommenderClient,
    user: str | None,
    history: tuple[str, ...] | None,
    similar: str | None,
    options: dict[str, Any],
) -> RecommendationList:
    shared: dict[str, Any] = {name: options[name] for name in ("k", "model", "min_score", "offset")}
    shared["exclude"] = options["exclude"] or ()
    shared["allow"] = options["allow"] or ()
    shared["allow_categories"] = options["category"]
    shared["include_titles"] = True
    subject_only = {name: options[name] for name in ("include_seen", "exact")}
    if similar is None:
        return client.recommend(user, history=history, allow_fallback=options["fallback"], **subject_only, **shared)
    if any(subject_only.values()) or options["fallback"]:
        raise click.UsageError("--include-seen, --exact and --fallback do not go with --similar")
    return client.similar_items(similar, **shared)


def _print_list(answer: RecommendationList, k: int) -> None:
    rows = [(str(place), item.item_id, f"{item.score:.4f}", item.title) for place, item in enumerate(answer, 1)]
    print_table(("#", "item", "score", "title" if answer.titles else ""), rows)
    timings = answer.timings_us
    click.echo(
        f"\n{answer.model}:{answer.version} · {answer.source} · {timings['total']} µs on the server"
        f" (queue {timings['queue']}, encode {timings['encode']}, search {timings['search']},"
        f" filter {timings['filter']})"
    )
    if answer.shortfall:
        click.echo(f"fewer than {k}: {answer.shortfall.replace('_', ' ')}")
    if answer.unknown_item_ids:
        click.echo(f"unknown items, left out: {', '.join(answer.unknown_item_ids)}")


def _print_info(info: ServerInfo, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(info), ensure_ascii=False))
        return
    rows = [
        (
            f"{model.name}:{model.version}{' *' if model.is_default else ''}",
            ", ".join(model.labels),
            model.method,
            str(model.dim),
            str(model.users),
            str(model.items),
            model.index,
            f"{model.quality['recall@20']:.4f}" if "recall@20" in model.quality else "",
        )
        for model in info.models
    ]
    print_table(("model", "labels", "method", "dim", "users", "items", "index", "recall@20"), rows)
    click.echo(f"\nlowpass {info.server_version}; * answers by default")
    click.echo("limits: " + ", ".join(f"{name} {bound}" for name, bound in info.limits.items()))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as they must be."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
