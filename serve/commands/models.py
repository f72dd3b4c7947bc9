"""`lowpass models`: change what a running server serves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from serve.commands.connection import Connection, connection_options
from serve.commands.serve import read_shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.client.admin import AdminClient

ADMIN_OPTIONS = connection_options("--admin", "127.0.0.1:50052", timeout=600.0)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def models() -> None:
    """Change what a running server serves; a change that fails changes nothing.

    Example: lowpass models label student stable 7
    """


def _client(connection: Connection) -> AdminClient:
    from serve.client.admin import AdminClient

    return AdminClient(**connection.arguments())


@models.command(name="list")
@ADMIN_OPTIONS
@JSON_OPTION
def list_(connection: Connection, *, as_json: bool) -> None:
    """Show every version in the repository or loaded.

    Example: lowpass models list
    """
    with _client(connection) as client:
        _print_versions(client.models(), as_json)


@models.command()
@click.argument("model")
@click.argument("revision", default="")
@ADMIN_OPTIONS
@JSON_OPTION
def load(model: str, revision: str, connection: Connection, *, as_json: bool) -> None:
    """Serve one more version of MODEL, or what a label names from now on; without REVISION, `stable`.

    Example: lowpass models load teacher
    """
    with _client(connection) as client:
        _print_versions([client.load(model, revision)], as_json)


@models.command()
@click.argument("model")
@click.argument("version")
@ADMIN_OPTIONS
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


@models.command()
@click.argument("model")
@click.argument("name")
@click.argument("revision")
@ADMIN_OPTIONS
@JSON_OPTION
def label(model: str, name: str, revision: str, connection: Connection, *, as_json: bool) -> None:
    """Load REVISION of MODEL if need be, then move the label NAME to it, in one step.

    Example: lowpass models label student canary 8
    """
    with _client(connection) as client:
        _print_versions(client.set_label(model, name, revision), as_json)


@models.command()
@click.argument("model")
@ADMIN_OPTIONS
@JSON_OPTION
def rollback(model: str, connection: Connection, *, as_json: bool) -> None:
    """Move `stable` of MODEL back to `previous`.

    Example: lowpass models rollback student
    """
    with _client(connection) as client:
        _print_versions(client.rollback(model), as_json)


@models.command()
@click.argument("model")
@click.argument("shares", nargs=-1, callback=read_shares)
@ADMIN_OPTIONS
def split(model: str, shares: tuple[tuple[str, float], ...], connection: Connection) -> None:
    """Let labels of MODEL answer SHARES (LABEL=SHARE) of its requests; none ends the split.

    Example: lowpass models split student canary=0.05
    """
    with _client(connection) as client:
        client.set_split(model, dict(shares))
    click.echo(f"{model}: " + (", ".join(f"{name} {share:.1%}" for name, share in shares) or "no split"))


@models.command()
@click.argument("model")
@click.argument("other", default="")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=0.1, show_default=True)
@ADMIN_OPTIONS
def shadow(model: str, other: str, share: float, connection: Connection) -> None:
    """Let OTHER (NAME[:REVISION]) answer a share of MODEL's requests again, unseen; without OTHER, no longer.

    Example: lowpass models shadow student teacher --share 0.1
    """
    name, _, revision = other.partition(":")
    with _client(connection) as client:
        client.set_shadow(model, name, revision, share)
    click.echo(f"{model}: " + (f"{other} answers {share:.1%} again" if other else "no shadow"))


def _print_versions(versions: Sequence[Any], as_json: bool) -> None:
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
        }
        for each in versions
    ]
    if as_json:
        click.echo(json.dumps({"versions": rows}))
        return
    header = ("model", "labels", "state", "load s", "error")
    table = [
        (
            f"{row['model']}:{row['version']}",
            ", ".join(row["labels"]),
            ("default" if row["is_default"] else "loaded") if row["loaded"] else "",
            f"{row['load_seconds']:.2f}" if row["loaded"] else "",
            row["error"],
        )
        for row in rows
    ]
    click.echo(tabulate(table, header, tablefmt="plain", disable_numparse=True))
