"""The generator as a process of its own: `python -m serve.bench`, one JSON object out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from export.bundle import BundleError, open_bundle
from serve.bench.closed_loop import LoadPlan, run_closed_loop
from serve.bench.errors import LoadTestError
from serve.bench.summary import summarise
from serve.bench.workload import Workload


@click.command()
@click.option("--target", default="127.0.0.1:50051", show_default=True, help="Where the server is.")
@click.option(
    "--bundle",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Bundle whose users ask.",
)
@click.option("--model", default="", help="Ask this model.  [default: the server's]")
@click.option("-k", default=20, show_default=True, type=click.IntRange(1), help="Items an answer.")
@click.option(
    "--in-flight",
    "levels",
    multiple=True,
    default=(1,),
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Requests in flight; repeatable, one measurement each.",
)
@click.option("--requests", default=3000, show_default=True, type=click.IntRange(1), help="Requests measured.")
@click.option("--warm-up", default=300, show_default=True, type=click.IntRange(0), help="Requests before these.")
@click.option("--timeout", default=10.0, show_default=True, type=click.FloatRange(0.001), help="Seconds a request.")
@click.option("--users", "distribution", default="uniform", show_default=True, type=click.Choice(["uniform", "zipf"]))
@click.option("--seed", default=0, show_default=True, help="Of the draw of users.")
@click.option("--server-pid", type=int, help="Also measure the processor time of this process.")
def loadtest(
    bundle: Path, levels: tuple[int, ...], model: str, k: int, distribution: Any, seed: int, **plan: Any
) -> None:
    """Ask a running server as fast as it answers, and print what was seen as one JSON object.

    Example: python -m serve.bench --bundle models/student/1 --in-flight 1 --in-flight 32
    """
    workload = Workload(model=model, k=k, distribution=distribution, seed=seed)
    users = open_bundle(bundle, verify=False).user_ids
    summaries = [
        summarise(run_closed_loop(LoadPlan(in_flight=level, **plan), workload.payloads(users)), level)
        for level in levels
    ]
    click.echo(json.dumps({"levels": [asdict(summary) for summary in summaries]}))


def main() -> int:
    """Run the command; 0 done, 2 the user's fault."""
    try:
        loadtest.main(prog_name="python -m serve.bench", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return 2
    except (LoadTestError, BundleError) as error:
        click.echo(f"loadtest: error: {error}", err=True)
        return 2
    except click.Abort:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
