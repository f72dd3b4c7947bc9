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
    from export.bundle.repository import write_file
    from serve.rpc.credentials import new_key, parse_digests, read_digests

    known = read_digests(path) if path.exists() else {}
    if name in known:
        raise click.UsageError(f"{path}: has a key named {name!r}: choose another name, or remove its line first")
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"--file {path}: its directory does not exist: make it first")
    secret, line = new_key(name)
    before = path.read_text(encoding="utf-8").rstrip("\n") + "\n" if path.exists() else ""
    text = f"{before}{line}\n"
    parse_digests(text, path)
    write_file(path, text.encode())
    click.echo(json.dumps({"name": name, "key": secret}) if as_json else secret)
