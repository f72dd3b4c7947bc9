"""The `lowpass gains` command."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from serve.gains.measure import Measurement, choose_contenders, measure, pick_cores
from serve.gains.report import ratios, render

K = 20


@click.command()
@click.option("--repository", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="Root of the model repository.")  # fmt: skip
@click.option("--teacher", required=True, help="The teacher's model name.")
@click.option("--student", required=True, help="The student's model name.")
@click.option("--rivals/--no-rivals", default=True, show_default=True,
              help="Also the teacher cut by SVD and product-quantised, at the student's bytes an item.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("gains"), show_default=True,
              help="Where gains.json, gains.md and gains.png go.")  # fmt: skip
@click.option("--requests", type=click.IntRange(100), default=2000, show_default=True, help="Requests a load.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Loads a model; medians count.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def gains(
    repository: Path, teacher: str, student: str, *, rivals: bool, out: Path, requests: int, rounds: int, as_json: bool
) -> None:
    """Serve teacher, student and rivals in turn; print what distillation won and what it lost.

    Example: lowpass gains --repository models --teacher teacher --student student
    """
    if teacher == student:
        raise click.UsageError(f"--teacher and --student are both '{teacher}': name two models")
    contenders = choose_contenders(repository, teacher, student, rivals=rivals)
    measurements = measure(repository, contenders, requests=requests, rounds=rounds)
    context = {"requests": requests, "rounds": rounds, "k": K, "pinned": pick_cores()[0] is not None}
    content = {
        "context": context,
        "models": [m.as_dict() for m in measurements],
        "ratios_to_teacher": {m.name: ratios(measurements[0], m) for m in measurements[1:]},
    }
    report = render(measurements, context)
    written = _write(out, content, report, measurements)
    click.echo(json.dumps(content) if as_json else report + "\nwritten: " + ", ".join(map(str, written)))


def _write(out: Path, content: dict[str, Any], report: str, measurements: Sequence[Measurement]) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    files = {"gains.json": (json.dumps(content, indent=2) + "\n").encode(), "gains.md": report.encode()}
    try:
        from serve.gains.figure import draw

        files["gains.png"] = draw(measurements)
    except ImportError:
        click.echo("no gains.png: the plot needs matplotlib: pip install matplotlib", err=True)
    for name, data in files.items():
        _replace(out / name, data)
    return [out / name for name in files]


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
