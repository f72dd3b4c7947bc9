"""`lowpass serve`: the options of `serve.process.options` as grouped help, command line and `serve.toml`.

Nothing heavy is imported until a server starts.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from serve.answers.errors import WrongOptions
from serve.commands.options import read_place
from serve.process.options import GROUPS, LIMITS, MODELS, declarations, make_options

OTHER = "Other"


class GroupedOption(click.Option):
    """An option that help lists under a heading."""

    def __init__(self, *arguments: Any, group: str = OTHER, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group

    @property
    def key(self) -> str:
        """Its name in `serve.toml`."""
        return self.opts[0].removeprefix("--").replace("-", "_")


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section a group."""
        parameters = self.get_params(ctx)
        for group in (*GROUPS, OTHER):
            records = [each.get_help_record(ctx) for each in parameters if getattr(each, "group", OTHER) == group]
            with formatter.section(group):
                formatter.write_dl([record for record in records if record is not None])


def _as_click(declared: dataclasses.Field[Any]) -> Callable[[Any], Any]:
    """The command-line option of a declaration."""
    said, default = declared.metadata, declared.default
    name = said.get("name", declared.name).replace("_", "-")
    words = [f"--{name}", declared.name]
    kind: Any = click.STRING
    if isinstance(default, bool):
        words, kind = [f"--{name}/--no-{name}", declared.name], click.BOOL
    elif isinstance(default, int):
        kind = click.IntRange(said.get("least"), said.get("most"))
    elif isinstance(default, float):
        kind = click.FloatRange(said.get("least"), said.get("most"))
    elif said.get("metavar") == "DIR|URL":
        kind = read_place
    elif default is None:
        kind = click.Path(path_type=Path, dir_okay=said.get("metavar") == "DIR")
    elif "choices" in said:
        kind = click.Choice(said["choices"])
    return click.option(
        *words,
        cls=GroupedOption,
        group=said.get("group", LIMITS),
        type=kind,
        default=default,
        show_default=default not in (None, "", ()),
        multiple=isinstance(default, tuple),
        metavar=said.get("metavar"),
        help=said["help"],
    )


def _server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for declared in reversed(list(declarations())):
        command = _as_click(declared)(command)
    return command


def _read_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Take what a TOML file says as defaults, so that the command line wins."""
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongOptions(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise WrongOptions(f"{path}: is not TOML ({error})") from error
    known = {each.key: each for each in context.command.params if isinstance(each, GroupedOption)}
    context.default_map = {
        option.name or "": _checked(f"{path}: {where}", context, option, value)
        for where, option, value in _flatten(path, content, known)
    }


def _flatten(
    path: Path, content: Mapping[str, Any], known: Mapping[str, GroupedOption]
) -> Iterator[tuple[str, GroupedOption, Any]]:
    """Where a value stands, its option, and the value; a table is the group of the options in it."""
    tables = {_table(group): group for group in GROUPS}
    places: dict[str, str] = {}
    for name, value in content.items():
        is_table = isinstance(value, dict)
        for inner, inner_value in value.items() if is_table else [(name, value)]:
            key = inner.replace("-", "_")
            where = f"{name}.{inner}" if is_table else name
            if is_table and name not in tables:
                raise WrongOptions(f"{path}: {name}: no such table; there are {', '.join(tables)}")
            if key not in known or known[key].group == OTHER:
                raise WrongOptions(f"{path}: {where}: no such option; 'lowpass serve --help' lists them")
            if is_table and known[key].group != tables[name]:
                raise WrongOptions(f"{path}: {where}: belongs to the table {_table(known[key].group)}")
            if places.setdefault(key, where) != where:
                raise WrongOptions(f"{path}: {where}: is set by {places[key]} already; remove one of them")
            yield where, known[key], inner_value


def _table(group: str) -> str:
    return group.lower().replace(" ", "_")


def _checked(where: str, context: click.Context, option: GroupedOption, value: Any) -> Any:
    """A value of the type that its option takes; click would also take "7" for 7.

    Args:
        where: The file, the table and the key.
    """
    wanted: dict[str, Any] = {"a string": str}
    if option.multiple:
        wanted = {"a list of strings": list}
    elif option.is_flag:
        wanted = {"true or false": bool}
    elif isinstance(option.type, click.IntRange):
        wanted = {"a whole number": int}
    elif isinstance(option.type, click.FloatRange):
        wanted = {"a number": int | float}
    ((words, kind),) = wanted.items()
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits and isinstance(value, float) and not math.isfinite(value):
        fits, words = False, "a finite number"
    if not fits or (kind is list and not all(isinstance(each, str) for each in value)):
        raise WrongOptions(f"{where}: is {value!r}; give {words}, e.g. {_example(option)}")
    try:
        option.type_cast_value(context, value)
    except click.BadParameter as error:
        raise WrongOptions(f"{where}: {error.message}") from error
    return value


def _example(option: GroupedOption) -> str:
    """A line that would do."""
    given = option.default if option.default not in (None, "", ()) else option.metavar or "..."
    return f"{option.key} = {json.dumps([given] if option.multiple else given, default=str)}"


def _as_toml(context: click.Context) -> str:
    """The options in force, as `--config` reads them; those that are not set are left out."""
    lines = []
    for group in GROUPS:
        lines.append(f"[{_table(group)}]")
        for option in context.command.params:
            value = context.params.get(option.name or "")
            if isinstance(option, GroupedOption) and option.group == group and value not in (None, ()):
                # A JSON string, number or list of strings is one of TOML too.
                lines.append(f"{option.key} = {json.dumps(value, default=str, ensure_ascii=False)}")
        lines.append("")
    return "\n".join(lines).rstrip()


@click.command(cls=GroupedCommand)
@click.option(
    "--fake", cls=GroupedOption, group=MODELS, is_flag=True, help="Serve a made-up model instead, to try a client."
)
@_server_options
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="Set options by a TOML file: name = value, names with _ for -, in tables named like these groups or in none."
    " What is given here wins.",
)
@click.option("--print-config", is_flag=True, help="Print the options in force as such a file, and do not serve.")
@click.pass_context
def serve(context: click.Context, /, fake: bool, print_config: bool, **given: Any) -> int:
    """Answer top-k queries over gRPC, with Prometheus metrics, until SIGTERM.

    Example: lowpass serve --repository models --model student --address 127.0.0.1:50051
    """
    if print_config:
        click.echo(_as_toml(context))
        return 0
    if fake == (given["repository"] is not None):
        raise click.UsageError("give either --repository DIR|URL or --fake")
    options = make_options(given)
    # Before NumPy and FAISS come in: serving threads are the parallelism, native pools would only fight them.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What gRPC's core says of callers' broken handshakes it writes itself, and would wait for a log that nobody reads.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # One more series per child of a histogram, which no query needs; read when prometheus_client is imported.
    os.environ.setdefault("PROMETHEUS_DISABLE_CREATED_SERIES", "True")
    if options.workers > 1:
        from serve.process.supervisor import run
    else:
        from serve.process.server import run
    return run(options)
