"""The `lowpass gains` command."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from export.bundle.repository import ModelRepository, write_file
from serve.bench.contestants import Contestant, find_contestants
from serve.bench.cores import CorePlan, plan_cores
from serve.bench.gains_report import render
from serve.bench.measurement import Measurement, build_measurement, gains_over
from serve.bench.rounds import LoadOptions, run_rounds


@click.command()
@click.option("--repository", required=True, type=click.Path(file_okay=False, path_type=Path), help="Model repository.")
@click.option("--teacher", required=True, help="The teacher's model name.")
@click.option("--student", required=True, help="The student's model name.")
@click.option(
    "--rivals/--no-rivals",
    default=True,
    show_default=True,
    help="Also the teacher cut by SVD and product-quantised, at the student's bytes an item.",
)
@click.option(
    "--answer-tables", is_flag=True, help="Also compare bundles that have an answer table; the report says so."
)
@click.option(
    "--out",
    default=Path("gains"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where gains.json, gains.md and gains.png go.",
)
@click.option("--requests", default=3000, show_default=True, type=click.IntRange(1), help="Requests a load.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Visits to each model.")
@click.option("--users", default="uniform", show_default=True, type=click.Choice(["uniform", "zipf"]), help="Who asks.")
@click.option("--seed", default=0, show_default=True, help="Of the draw of users.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def gains(
    repository: Path,
    teacher: str,
    student: str,
    *,
    rivals: bool,
    answer_tables: bool,
    out: Path,
    as_json: bool,
    **load: Any,
) -> None:
    """Serve teacher, student and rivals in turn; print what distillation won and what it lost.

    Example: lowpass gains --repository models --teacher teacher --student student
    """
    if teacher == student:
        raise click.UsageError(f"--teacher and --student are both '{teacher}': name two models")
    options, cores = LoadOptions(**load), plan_cores()
    with _children_ending_on_sigterm():
        contestants, notes = find_contestants(
            ModelRepository(repository), teacher, student, rivals=rivals, answer_tables=answer_tables
        )
        measurements = _measure(repository, contestants, options, cores)
    content = {
        "load": vars(options),
        "notes": [cores.note, *notes],
        "models": [m.as_dict() for m in measurements],
        "gains_over_teacher": {m.name: _ratios(measurements[0], m) for m in measurements[1:]},
    }
    report = render(measurements, options, [cores.note, *notes])
    written = _write(out, content, report, measurements)
    click.echo(json.dumps(content) if as_json else report + "\nwritten: " + ", ".join(map(str, written)))


@contextmanager
def _children_ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that no child is left behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ratios(teacher: Measurement, other: Measurement) -> dict[str, float]:
    return {name: round(gain.ratio, 4) for name, gain in gains_over(teacher, other).items()}


def _measure(
    repository: Path, contestants: Sequence[Contestant], options: LoadOptions, cores: CorePlan
) -> list[Measurement]:
    visits = len(contestants) * options.rounds
    with tqdm(total=visits, desc="measuring", unit="visit", disable=None) as bar:

        def advance(model: str) -> None:
            bar.set_postfix_str(model)
            bar.update()

        rounds = run_rounds(repository, contestants, options, cores, advance)
    return [build_measurement(contestant, rounds[contestant.name]) for contestant in contestants]


def _write(out: Path, content: dict[str, Any], report: str, measurements: Sequence[Measurement]) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    files = {"gains.json": (json.dumps(content, indent=2) + "\n").encode(), "gains.md": report.encode()}
    try:
        from serve.bench.gains_figure import draw

        files["gains.png"] = draw(measurements)
    except ImportError:
        click.echo("no gains.png: the plot needs matplotlib (pip install matplotlib)", err=True)
    for name, data in files.items():
        write_file(out / name, data)
    return [out / name for name in files]
