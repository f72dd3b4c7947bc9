"""Run what is missing of the chosen sizes and steps, and print the table.

python -m tests.benchmarks.scale --sizes "S M" --steps "bprmf import" --folder FOLDER
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import click

from tests.benchmarks.scale.bars import SIZES
from tests.benchmarks.scale.children import ROOT, CommandFailed
from tests.benchmarks.scale.results import Result, as_json, find_kept, keep, lay_out
from tests.benchmarks.scale.steps import STEPS, Place, count_interactions

USUAL_SIZES = "S M L"
USUAL_STEPS = " ".join(name for name in STEPS if name != "road")


@click.command()
@click.option("--sizes", default=USUAL_SIZES, show_default=True, help=f"Of {', '.join(SIZES)}.")
@click.option("--steps", default=USUAL_STEPS, show_default=True, help=f"Of {', '.join(STEPS)}.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("scale"), show_default=True)
@click.option("--epochs", default=3, show_default=True, help="Over which a training is measured.")
@click.option("--limit", default=36_000.0, show_default=True, help="Seconds that a command may take.")
@click.option("--again", is_flag=True, help="Measure the chosen steps again.")
@click.option("--json", "json_out", is_flag=True, help="Print JSON instead of the table.")
def main(sizes: str, steps: str, folder: Path, epochs: int, limit: float, *, again: bool, json_out: bool) -> None:
    """Say what each step costs, in processor seconds on one core and memory, beside its bar, and how it grows."""
    chosen_sizes, chosen_steps = _choose(sizes, SIZES, "--sizes"), _choose(steps, STEPS, "--steps")
    results = []
    for size in chosen_sizes:
        place = Place.of(folder.resolve(), size, epochs, limit)
        for step in chosen_steps:
            kept = None if again else find_kept(place.folder, step)
            results.append(kept or _measure(place, size, step))
    click.echo(json.dumps(as_json(results), indent=2) if json_out else lay_out(results))


def _choose(words: str, known: Mapping[str, object], option: str) -> list[str]:
    chosen = words.split()
    for word in chosen:
        if word not in known:
            raise click.BadParameter(f"'{word}' is not one of {', '.join(known)}", param_hint=option)
    return [name for name in known if name in chosen]


def _measure(place: Place, size: str, step: str) -> Result:
    """Run a step, and before it what it needs and is not there; keep what came of it."""
    for needed in STEPS[step].needs:
        if not (place.folder / STEPS[needed].makes).exists():
            result = _measure(place, size, needed)
            if result.failure:
                return Result(step, size, result.interactions, failure=f"needs {needed}, which failed")
    click.echo(f"{size} {step} …", err=True)
    try:
        measured, failure = STEPS[step].measure(place), ""
    except CommandFailed as error:
        measured, failure = None, str(error)
    data = place.folder / "data" / "dataset.json"
    interactions = count_interactions(place.folder) if data.is_file() else 0
    result = Result(step, size, interactions, measured, failure, _commit())
    keep(place.folder, result)
    return result


def _commit() -> str:
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


if __name__ == "__main__":
    main()
