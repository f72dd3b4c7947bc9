"""What the files of deploy/ say, asked of the product itself: option names, values, addresses."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import click

import lowpass
from jobs.spec.reading import load_spec
from serve.commands.serve import serve
from serve.process.options import declarations, make_options

ROOT = Path(__file__).parents[2]
_FIELDS = {each.name for each in declarations()}


def check_words(words: Sequence[str]) -> None:
    """Look whether the words after `lowpass` name a command and options of it; their values are not looked at.

    Raises:
        click.UsageError: There is no such command or option.
    """
    command: click.Command = lowpass.cli
    rest = list(words)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        command = found
    known = {word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if word.startswith("-") and word.partition("=")[0] not in known:
            raise click.UsageError(f"no such option: {word}")


def serve_options(config: Path | None, *words: str) -> SimpleNamespace:
    """Options of `lowpass serve` by their fields' names, read and checked as it does.

    Args:
        config: A `serve.toml`.
        words: Of the command line, which win.

    Raises:
        WrongOptions: An option is unknown, of the wrong type, or contradicts another.
    """
    given = [] if config is None else ["--config", str(config)]
    context = serve.make_context("serve", [*given, *words])
    values = {name: value for name, value in context.params.items() if name in _FIELDS}
    # The directory of the ready file is there where the server runs, not here.
    make_options({**values, "ready_file": None})
    return SimpleNamespace(**values)


def check_job(text: str, folder: Path) -> None:
    """Look whether `lowpass job run` takes a spec, with absolute paths moved below a folder.

    Raises:
        SpecError: It does not.
    """
    moved = re.sub(r'"/(?!/)', f'"{folder}/', text)
    source = Path(tomllib.loads(moved)["data"]["source"])
    source.parent.mkdir(parents=True, exist_ok=True)
    source.touch()
    (folder / "job.toml").write_text(moved)
    load_spec(folder / "job.toml")
