"""`lowpass key`; nothing heavy is imported until it runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from serve.commands.options import JSON_OPTION


@click.command()
@click.argument("name")
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File of keys; the new one is added.",
)
@JSON_OPTION
def key(name: str, path: Path, as_json: bool) -> None:
    """Make an API key for NAME: its digest goes into the file, the key itself is shown this once.

    Example: lowpass key website --file keys.txt
    """
    from serve.rpc.credentials import add_key

    secret = add_key(path, name)
    click.echo(json.dumps({"name": name, "key": secret}) if as_json else secret)
