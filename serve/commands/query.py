"""`lowpass query`: ask a running server; nothing heavy is imported until it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import click
from tabulate import tabulate

from serve.commands.options import Connection, connection_options

if TYPE_CHECKING:
    from serve.client import RecommendationList, RecommenderClient, ServerInfo


def _split_ids(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


@click.command()
@connection_options("127.0.0.1:50051", timeout=5.0)
@click.option("--user", help="Recommend for this user.")
@click.option("--history", callback=_split_ids, metavar="ID,ID,…", help="Recommend for someone with these items.")
@click.option(
    "--users-file",
    type=click.File(encoding="utf-8"),
    help="Recommend for every user of this file, an id a line (-: standard input); prints a JSON object a line."
    " --timeout is for all of them.",
)
@click.option("--similar", metavar="ITEM", help="List the items nearest to this one.")
@click.option("--info", is_flag=True, help="Show what the server serves.")
@click.option("--health", is_flag=True, help="Ask whether it serves: exit code 0 if so, else 1 or 2. Needs no key.")
@click.option(
    "--user-shards",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Over how many shards the users are spread: name that of the user, for a proxy to route by.",
)
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="How many items.")
@click.option("--model", default="", metavar="NAME[:LABEL]", help="Ask this model.")
@click.option("--exclude", callback=_split_ids, metavar="ID,ID,…", help="Never answer with these items.")
@click.option("--allow", callback=_split_ids, metavar="ID,ID,…", help="Answer only with these items.")
@click.option("--category", multiple=True, help="Answer only with items of this category; repeatable.")
@click.option("--min-score", type=float, help="Leave out what scores less.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Skip this many of the best.")
@click.option("--include-seen", is_flag=True, help="Also answer with what the user already has.")
@click.option("--exact", is_flag=True, help="Score every item.")
@click.option("--recent", callback=_split_ids, metavar="ID,ID,…", help="What --user has taken since training.")
@click.option("--diversity", type=click.FloatRange(0, 1), default=0.0, help="Less of the same.")
@click.option("--popularity-discount", type=click.FloatRange(0), default=0.0, help="Less of what is popular anyway.")
@click.option("--fallback", is_flag=True, help="Answer the unknown with what is popular.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def query(
    connection: Connection,
    *,
    user: str | None,
    history: tuple[str, ...] | None,
    users_file: IO[str] | None,
    similar: str | None,
    info: bool,
    health: bool,
    user_shards: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Ask a running server.

    Example: lowpass query --user user-7 -k 5
    """
    if sum((user is not None, history is not None, users_file is not None, similar is not None, info, health)) != 1:
        raise click.UsageError("give exactly one of --user, --history, --users-file, --similar, --info and --health")
    from serve.client import RecommenderClient

    with RecommenderClient(**connection.arguments(), user_shards=user_shards) as client:
        if health:
            return _print_health(client.is_serving(), as_json)
        if info:
            _print_info(client.info(), as_json)
        elif users_file is not None:
            _print_stream(client, users_file, options, connection.timeout)
        else:
            _print_answer(_ask(client, user, history, similar, options), options["k"], as_json)
    return 0


def _ask(
    client: RecommenderClient,
    user: str | None,
    history: tuple[str, ...] | None,
    similar: str | None,
    options: dict[str, Any],
) -> RecommendationList:
    shared, subject_only = _query_options(options)
    if similar is None:
        return client.recommend(user, history=history, **subject_only, **shared)
    if any(subject_only.values()):
        raise click.UsageError(
            "--include-seen, --exact, --fallback, --recent, --diversity and --popularity-discount need a subject"
        )
    return client.similar_items(similar, **shared)


def _query_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What every question takes, and what only one with a subject takes."""
    shared: dict[str, Any] = {name: options[name] for name in ("k", "model", "min_score", "offset")}
    shared["exclude"] = options["exclude"] or ()
    shared["allow"] = options["allow"] or ()
    shared["allow_categories"] = options["category"]
    shared["include_titles"] = True
    subject_only = {name: options[name] for name in ("include_seen", "exact", "diversity", "popularity_discount")}
    subject_only["recent"] = options["recent"] or ()
    subject_only["allow_fallback"] = options["fallback"]
    return shared, subject_only


def _print_stream(client: RecommenderClient, lines: IO[str], options: dict[str, Any], timeout: float) -> None:
    from serve.client import RecommendationList

    try:
        users = [line.strip() for line in lines if line.strip()]
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise click.UsageError(f"--users-file {lines.name}: byte {byte:#04x} is not UTF-8; save it as UTF-8") from error
    shared, subject_only = _query_options(options)
    for user, answer in zip(
        users, client.stream_recommend(users, timeout=timeout, **subject_only, **shared), strict=True
    ):
        found = asdict(answer) if isinstance(answer, RecommendationList) else {"error": str(answer)}
        click.echo(json.dumps({"user_id": user, **found}, ensure_ascii=False))


def _print_answer(answer: RecommendationList, k: int, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(answer), ensure_ascii=False))
        return
    rows = [(str(place), item.item_id, f"{item.score:.4f}", item.title) for place, item in enumerate(answer, 1)]
    _print_table(("#", "item", "score", "title" if answer.titles else ""), rows)
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
            f"{model.users}{'' if model.user_shard is None else f' (shard {model.user_shard} of {model.user_shards})'}",
            str(model.items),
            model.index,
            f"{model.quality['recall@20']:.4f}" if "recall@20" in model.quality else "",
        )
        for model in info.models
    ]
    _print_table(("model", "labels", "method", "dim", "users", "items", "index", "recall@20"), rows)
    click.echo(f"\nlowpass {info.server_version}; * answers by default")
    click.echo("limits: " + ", ".join(f"{name} {bound}" for name, bound in info.limits.items()))


def _print_health(is_serving: bool, as_json: bool) -> int:
    click.echo(json.dumps({"serving": is_serving}) if as_json else "serving" if is_serving else "not serving")
    return 0 if is_serving else 1


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Ids may look like numbers: they are printed as they are.
    click.echo(tabulate(rows, header, tablefmt="plain", disable_numparse=True))
