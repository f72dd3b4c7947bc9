"""The command line: one program whose groups load the package they belong to only when they are called.

`lowpass serve` must never import torch (see DESIGN.md, law 1), so nothing of ours is imported at module level.

Exit codes: 0 done, 1 our fault, 2 the user's fault, 3 a job that its gate held. An exception that carries an
`exit_code` attribute is a message for the user; any other one is a defect.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import click

COMMANDS: dict[str, str | dict[str, str]] = {
    "data": "distill.commands.data:data",
    "train": "distill.commands.train:train",
    "distill": "distill.commands.train:distill",
    "methods": "distill.commands.methods:methods",
    "evaluate": "distill.commands.evaluate:evaluate",
    "analyze": "distill.commands.analyze:analyze_runs",
    "sweep": "distill.commands.sweep:sweep",
    "report": "export.commands.report:report",
    "frontier": "export.commands.frontier:frontier",
    "export": "export.commands.export:export",
    "models": {
        "list": "serve.commands.models:list_",
        "show": "export.commands.models:show",
        "verify": "export.commands.models:verify",
        "label": "serve.commands.models:label",
        "rollback": "serve.commands.models:rollback",
        "load": "serve.commands.models:load",
        "unload": "serve.commands.models:unload",
        "split": "serve.commands.models:split",
        "shadow": "serve.commands.models:shadow",
    },
    "job": {
        "run": "jobs.commands.job:run",
        "status": "jobs.commands.job:status",
        "show": "jobs.commands.job:show",
        "resume": "jobs.commands.job:resume",
    },
    "serve": "serve.commands.serve:serve",
    "query": "serve.commands.query:query",
    "key": "serve.commands.key:key",
    "bench": "serve.commands.bench:bench",
}
"""Name → "module:attribute", or for a group the same of its commands; in the order in which a user meets them."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for (click's documented pattern).

    Args:
        table: Its part of `COMMANDS`; None for all.
    """

    def __init__(self, *arguments: Any, table: Mapping[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._table = COMMANDS if table is None else table
        self._prefix = "" if table is None else f"{self.name} "

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in road order, not alphabetical."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None for an unknown name."""
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, dict):
            return LazyGroup(cmd_name, table=entry, help=GROUPS[cmd_name])
        module_name, attribute = entry.split(":")
        if not module_name.startswith("serve."):  # A server bounds them itself, to one.
            importlib.import_module("serve.process.cores").bound_native_pools()
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in {"distill", "export", "jobs", "serve"}:
                raise
            room = module_name.split(".", maxsplit=1)[0].replace("jobs", "job")
            raise click.ClickException(
                f"'{cmd_name}' needs the Python package '{error.name}': pip install 'lowpass[{room}]'"
            ) from error
        command: click.Command = getattr(module, attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any of them: help must be instant."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[self._prefix + name]) for name in self._table])


GROUPS = {
    "models": """Show and change the models of a repository on disk (--repository) or of a running server (--target).

    A change that fails changes nothing.

    Example: lowpass models label student stable 7 --repository demo/models
    """,
    "job": """Make, measure and publish a model by one spec, again and again.

    Example: lowpass job run job.toml
    """,
}
"""Group → its help."""

SUMMARIES = {
    "data": "Prepare, fetch, synthesise or inspect interaction data.",
    "train": "Train a teacher (or a bare student) from interactions, or take one's embeddings.",
    "distill": "Distill a small student from a teacher run.",
    "methods": "List the distillation methods and their settings.",
    "evaluate": "Rank the whole catalogue for every user; compare runs, teacher and baselines.",
    "sweep": "Look for a method's best settings on validation, in parallel and resumably.",
    "analyze": "Show by frequency what students kept of their teacher.",
    "report": "Write one self-contained HTML page on a set of runs.",
    "frontier": "Train, shrink and measure every candidate; recommend one to serve.",
    "export": "Turn a run, or a frontier's candidate, into a bundle in a model repository.",
    "models": "Show and change the models of a repository or of a running server.",
    "models list": "Show versions and labels.",
    "models show": "Print what a bundle says about itself.",
    "models verify": "Check every byte of a bundle, its index, and what its graphs compute.",
    "models label": "Point a label to a version.",
    "models rollback": "Move stable back to previous.",
    "models load": "Serve one more version.",
    "models unload": "Serve a version no longer.",
    "models split": "Let labels answer shares of a model's requests.",
    "models shadow": "Let another model answer a share of the requests again, unseen.",
    "job": "Run the whole road by one spec, nightly: train, distill, export, gate, publish.",
    "job run": "Run a job, or go on with it; do nothing where nothing changed.",
    "job status": "Say where a job stands.",
    "job show": "Show a run: steps, gate, what was published.",
    "job resume": "Go on with a run that was cut off, or that failed.",
    "serve": "Answer top-k queries over gRPC, with Prometheus metrics.",
    "query": "Ask a running server.",
    "bench": "Load a running server, or compare models: quality, bytes, latency, throughput.",
    "key": "Make an API key for a server.",
}


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lowpass")
def cli() -> None:
    """Lowpass distills a big recommender into a small one, exports it and serves it.

    Example: lowpass data synth demo/data && lowpass train demo/data --out demo/teacher
    """


def main(arguments: list[str] | None = None, command: click.Command = cli, name: str = "lowpass") -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Words after the program's name; `sys.argv` without it when None.
        command: What is run: all commands, or one that stands outside of them.
        name: The program's, for its help.

    Returns:
        0 done, 1 our fault, 2 the user's fault; 3 of a job that its gate held.
    """
    # ONNX Runtime from 1.29 on sends the names and hashes of models to its maker, unless told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        result: Any = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        click.echo("lowpass: interrupted", err=True)
        return 1
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        click.echo(f"lowpass: error: {error.format_message()}", err=True)
        return 2
    except Exception as error:
        return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    exit_code = getattr(error, "exit_code", None)
    if exit_code is None or os.environ.get("LOWPASS_DEBUG"):
        traceback.print_exc(file=sys.stderr)
    if exit_code is None:
        click.echo(f"lowpass: internal error: {type(error).__name__}: {error}", err=True)
        return 1
    click.echo(f"lowpass: error: {error}", err=True)
    return int(exit_code)


def entry_point() -> None:
    """Run `main` as the installed `lowpass` program."""
    sys.exit(main())


if __name__ == "__main__":
    entry_point()
