"""What several commands share: kinds of arguments, `--json`, NAME=VALUE pairs, and options that exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Command = TypeVar("Command", bound=Callable[..., Any])

DIRECTORY = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
EVAL_USERS = click.option(
    "--eval-users",
    type=click.IntRange(2),
    help="Measure quality on a drawn sample of at most so many users with held-out items, the same for all models. "
    " [default: all up to 10⁹ scores, users × items; beyond, as many as make so many, 5,000 or more]",
)
SETTING = "NAME=VALUE"


def with_options(options: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Give a command several options, listed in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def parse_pairs(_: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    """Callback of an option that may be repeated: "NAME=VALUE" texts as a mapping; dashes in a name are underscores."""
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"'{text}' is not {SETTING}", param_hint=parameter.opts[0])
        found[name.replace("-", "_")] = value
    return found


def refuse(context: click.Context, names: Collection[str], reason: str) -> None:
    """Refuse parameters that mean nothing beside the others.

    Args:
        context: Of the command.
        names: Of its parameters.
        reason: Follows the name of the first one that was given.

    Raises:
        click.UsageError: One was given.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in names and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} {reason}")
