"""`lowpass models`: what a model repository holds and what a running server serves.

`list`, `label` and `rollback` work on either: on disk with `--repository`, else on a server. Those that change what is
loaded need a server. `show` and `verify` read bundles on disk alone and come from `export.commands.models`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve.commands.options import JSON_OPTION, Connection, connection_options, read_place
from serve.process.options import read_share

if TYPE_CHECKING:
    from export.bundle import Place
    from serve.client.admin import AdminClient

SERVER_OPTIONS = connection_options("127.0.0.1:50052", timeout=600.0)
REPOSITORY_OPTION = click.option(
    "--repository",
    type=read_place,
    metavar="DIR|URL",
    help="Work on this model repository, a directory or s3://BUCKET/PREFIX; without it, on a server at its"
    " --admin-address.",
)


def _refuse_repository(context: click.Context, _parameter: click.Parameter, given: Path | None) -> None:
    if given is not None:
        raise click.UsageError(
            f"'lowpass models {context.info_name}' changes a running server: give --target, not --repository"
        )


def _on_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that needs a server."""
    refusing = click.option(
        "--repository", type=click.Path(path_type=Path), hidden=True, expose_value=False, callback=_refuse_repository
    )
    return SERVER_OPTIONS(refusing(command))


def _on_either(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that works on a repository or a server, and can print JSON."""
    return REPOSITORY_OPTION(SERVER_OPTIONS(JSON_OPTION(command)))


def _client(connection: Connection) -> AdminClient:
    from serve.client.admin import AdminClient

    return AdminClient(**connection.arguments())


@click.command(name="list")
@click.argument("model", default="")
@_on_either
def list_(model: str, repository: Place | None, connection: Connection, *, as_json: bool) -> None:
    """Show every version of MODEL, or of every model, and its labels.

    Example: lowpass models list --repository demo/models
    """
    if repository is not None:
        _print_stored(repository, model, as_json)
        return
    with _client(connection) as client:
        versions = [each for each in client.models() if model in ("", each.model)]
    if model and not versions:
        raise click.ClickException(
            f"{model}: no such model on {connection.target}; 'lowpass models list' shows them all"
        )
    _print_served(versions, as_json)


@click.command()
@click.argument("model")
@click.argument("name")
@click.argument("revision")
@_on_either
def label(
    model: str, name: str, revision: str, repository: Place | None, connection: Connection, *, as_json: bool
) -> None:
    """Point the label NAME of MODEL to REVISION (a version or another label), once that bundle verifies.

    A server loads the version first if need be, and answers with it in one step. On disk, the label moves in all
    shards of the users or in none.

    Example: lowpass models label student stable 7 --repository demo/models
    """
    if repository is not None:
        from export.bundle.opening import open_shards

        open_shards(repository, model, _say).set_label(model, name, revision)
        _print_stored(repository, model, as_json)
        return
    with _client(connection) as client:
        _print_served(client.set_label(model, name, revision), as_json)


@click.command()
@click.argument("model")
@_on_either
def rollback(model: str, repository: Place | None, connection: Connection, *, as_json: bool) -> None:
    """Move `stable` of MODEL back to `previous`.

    Example: lowpass models rollback student --repository demo/models
    """
    if repository is not None:
        from export.bundle.opening import open_shards

        open_shards(repository, model, _say).rollback(model)
        _print_stored(repository, model, as_json)
        return
    with _client(connection) as client:
        _print_served(client.rollback(model), as_json)


@click.command()
@click.argument("model")
@click.argument("revision", default="")
@_on_server
@JSON_OPTION
def load(model: str, revision: str, connection: Connection, *, as_json: bool) -> None:
    """Serve one more version of MODEL, or what a label names from now on; without REVISION, `stable`.

    Example: lowpass models load teacher
    """
    with _client(connection) as client:
        _print_served([client.load(model, revision)], as_json)


@click.command()
@click.argument("model")
@click.argument("version")
@_on_server
@JSON_OPTION
def unload(model: str, version: str, connection: Connection, *, as_json: bool) -> None:
    """Serve VERSION of MODEL no longer, and wait until its requests have ended.

    Example: lowpass models unload student 6
    """
    with _client(connection) as client:
        drained = client.unload(model, version)
    if as_json:
        click.echo(json.dumps({"model": model, "version": version, "drained": drained}))
    else:
        click.echo(f"{model}:{version} unloaded{'' if drained else '; some requests still hold it'}")


@click.command()
@click.argument("model")
@click.argument("shares", nargs=-1)
@_on_server
def split(model: str, shares: tuple[str, ...], connection: Connection) -> None:
    """Let labels of MODEL answer SHARES (LABEL=SHARE) of its requests; none ends the split.

    Example: lowpass models split student canary=0.05
    """
    wanted = dict(read_share(text) for text in shares)
    with _client(connection) as client:
        client.set_split(model, wanted)
    click.echo(f"{model}: " + (", ".join(f"{name} {share:.1%}" for name, share in wanted.items()) or "no split"))


@click.command()
@click.argument("model")
@click.argument("other", default="")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Of the requests, at most 1.",
)
@_on_server
def shadow(model: str, other: str, share: float, connection: Connection) -> None:
    """Let OTHER (NAME[:REVISION]) answer a share of MODEL's requests again, unseen; without OTHER, no longer.

    Example: lowpass models shadow student teacher --share 0.1
    """
    name, _, revision = other.partition(":")
    with _client(connection) as client:
        client.set_shadow(model, name, revision, share)
    click.echo(f"{model}: " + (f"{other} answers {share:.1%} again" if other else "no shadow"))


def _say(text: str) -> None:
    click.echo(text, err=True)


def _print_stored(place: Place, model: str, as_json: bool) -> None:
    from export.bundle import ModelRepository, open_repository
    from export.bundle.repository import shard_folders

    plain = open_repository(place)
    places = {"": plain} if not model or model in plain.models() else {}
    if isinstance(plain, ModelRepository):
        places |= {path.name: ModelRepository(path) for path in shard_folders(plain.root, model)}
    rows: list[dict[str, Any]] = []
    for folder, repository in (places or {"": plain}).items():
        for found in repository.overview(model or None):
            for version in found.versions:
                named = sorted(label for label, at in found.labels.items() if at == version)
                shard = {"shard": folder} if folder else {}
                rows.append({"model": found.model, "version": version, "labels": named, **shard})
    table = [(f"{row['model']}:{row['version']}", _words(row), row.get("shard", "")) for row in rows]
    _print(rows, ("model", "labels", "users" if any(row[2] for row in table) else ""), table, as_json)


def _print_served(versions: Sequence[Any], as_json: bool) -> None:
    rows = [
        {
            "model": each.model,
            "version": each.version,
            "labels": list(each.labels),
            "loaded": each.loaded,
            "is_default": each.is_default,
            "leases": each.leases,
            "load_seconds": round(each.load_seconds, 3),
            "error": each.error,
            "differs": each.differs,
        }
        for each in versions
    ]
    table = [
        (
            f"{row['model']}:{row['version']}",
            _words(row),
            ("default" if row["is_default"] else "loaded") if row["loaded"] else "",
            f"{row['load_seconds']:.2f}" if row["loaded"] else "",
            row["error"],
            row["differs"],
        )
        for row in rows
    ]
    differs = "workers" if any(row["differs"] for row in rows) else ""
    _print(rows, ("model", "labels", "state", "load s", "error", differs), table, as_json)


def _words(row: dict[str, Any]) -> str:
    return ", ".join(row["labels"])


def _print(rows: list[dict[str, Any]], header: tuple[str, ...], table: Sequence[Sequence[str]], as_json: bool) -> None:
    from tabulate import tabulate

    if as_json:
        click.echo(json.dumps({"versions": rows}))
    else:
        click.echo(tabulate(table, header, tablefmt="plain", disable_numparse=True))
