"""Cells: one JSON file each, written when its numbers are there and never run again.

    <results>/<data>/<backbone>/<contestant>-d<dim>-t<trial>-s<seed>.json     a training
    <results>/<data>/<backbone>/<untrained>-d<dim>.json                       a model that is not trained
    <results>/<data>/<backbone>/teacher.json

A training's file holds `name`, `config` (all settings, without paths), `curve` (a row an evaluated epoch), `metrics`
(reports and training cost, as in a run) and, where asked for, `int8` (reports of its own items in a byte a number).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.run import HISTORY_FILE, Run
from distill.storage import write_file
from results.plan import Study

TEACHER = "teacher"
REPORT = "test_all_users"


@dataclass(frozen=True)
class Cell:
    """What one file is about.

    Attributes:
        study: Its table.
        contestant: A trained contestant, an untrained model, or the teacher.
        dim: d_s; 0 for the teacher.
        trial: Number of the trial; None where nothing is trained.
        seed: Likewise.
    """

    study: Study
    contestant: str
    dim: int = 0
    trial: int | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """Path below the results folder, without its ending."""
        parts = [self.contestant]
        parts += [f"d{self.dim}"] if self.dim else []
        parts += [f"t{self.trial}", f"s{self.seed}"] if self.trial is not None else []
        return f"{self.study.name}/{'-'.join(parts)}"

    def path(self, results: Path) -> Path:
        """The cell's file."""
        return results / f"{self.name}.json"


def read_cell(cell: Cell, results: Path) -> dict[str, Any] | None:
    """The cell's content, or None where it has not been run."""
    path = cell.path(results)
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_cell(cell: Cell, results: Path, content: Mapping[str, Any]) -> None:
    """Write the cell's file whole."""
    text = json.dumps({"name": cell.name, **content}, indent=1, ensure_ascii=False)
    write_file(cell.path(results), (text + "\n").encode())


def describe_run(run: Run) -> dict[str, Any]:
    """What a finished run leaves in its cell."""
    config = {key: value for key, value in run.config.items() if key not in {"teacher", "format"}}
    with (run.path / HISTORY_FILE).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    shown = ("epoch", "loss", "seconds", "processor_seconds", "Recall@20", "NDCG@20")
    curve = {name: [round(float(row[name]), 5) for row in rows] for name in shown if name in rows[0]}
    return {"config": config, "curve": curve, "metrics": dict(run.metrics)}


def reported_recall(content: Mapping[str, Any]) -> float:
    """What is reported: test Recall@20 over all users."""
    return float(content["metrics"][REPORT]["Recall@20"])


def validation_recall(content: Mapping[str, Any]) -> float:
    """By what trials are chosen: validation Recall@20 over all users."""
    return float(content["metrics"]["validation_all_users"]["Recall@20"])


def winning_cells(
    study: Study, contestant: str, dim: int, num_trials: int, results: Path
) -> tuple[int | None, list[dict[str, Any]]]:
    """The winning trial, and what it left under each seed that has been run."""
    winner = winning_trial(study, contestant, dim, num_trials, results)
    if winner is None:
        return None, []
    found = (read_cell(Cell(study, contestant, dim, winner, seed), results) for seed in study.seeds)
    return winner, [content for content in found if content is not None]


def winning_trial(study: Study, contestant: str, dim: int, num_trials: int, results: Path) -> int | None:
    """The trial with the best validation Recall@20 under the first seed, or None before all are there."""
    found = []
    for trial in range(num_trials):
        content = read_cell(Cell(study, contestant, dim, trial, study.seeds[0]), results)
        if content is None:
            return None
        found.append(validation_recall(content))
    return max(range(num_trials), key=found.__getitem__)
