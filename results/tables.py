"""A study's tables from its cells: every contestant with its spread, and the trials behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from results.cells import (
    REPORT,
    TEACHER,
    Cell,
    read_cell,
    reported_recall,
    validation_recall,
    winning_cells,
)
from results.plan import Contestant, Plan, Study, num_trials

EQUAL_TIMES = (10, 30, 100)
"""Processor seconds after which students are compared."""

HEADER = (
    "contestant",
    "d",
    "B an item",
    "seeds",
    "validation Recall@20",
    "test Recall@20",
    "test NDCG@20",
    "kept",
    "at a byte a number",
    *(f"val. in {seconds} s" for seconds in EQUAL_TIMES),
    "best epoch",
    "processor s",
    "peak MiB",
)
MISSING = "–"


def render_study(plan: Plan, study: Study, results: Path) -> str:
    """The study's tables in Markdown; what has not been run is left out."""
    teacher = read_cell(Cell(study, TEACHER), results)
    if teacher is None:
        return ""
    rows = [_row(TEACHER, int(teacher["config"]["dim"]), [teacher], teacher)]
    trials = []
    for dim, names in study.contestants_by_dim.items():
        for name in study.untrained_at(dim):
            cell = read_cell(Cell(study, name, dim), results)
            rows += [_untrained_row(name, cell, teacher)] if cell is not None else []
        for name in names:
            count = num_trials(plan, study, name)
            winner, cells = winning_cells(study, name, dim, count, results)
            if winner is None:
                continue
            rows.append(_row(name, dim, cells, teacher))
            trials += _trial_rows(study, name, plan.contestants[name], dim, count, winner, results)
    teacher_training = teacher["config"]["training"]
    lines = [
        f"Teacher: {study.backbone}, d {teacher['config']['dim']}, lr {teacher_training['learning_rate']:g}, "
        f"wd {teacher_training['weight_decay']:g}, patience {teacher_training['patience']}.",
        "",
        render_table(HEADER, rows),
        "",
        "<details><summary>The trials, first seed; the best by validation was taken</summary>",
        "",
        render_table(
            ("contestant", "d", "trial", "validation Recall@20", "test Recall@20", "processor s", "taken"), trials
        ),
        "",
        "</details>",
    ]
    return "\n".join(lines)


def _row(name: str, dim: int, cells: Sequence[Mapping[str, Any]], teacher: Mapping[str, Any]) -> list[str]:
    metrics = [cell["metrics"] for cell in cells]
    recall = [reported_recall(cell) for cell in cells]
    training = [report["training"] for report in metrics]
    small = [cell["int8"][REPORT]["Recall@20"] for cell in cells if "int8" in cell]
    return [
        name,
        str(dim),
        f"{4 * dim:,}",
        str(len(cells)),
        _spread([validation_recall(cell) for cell in cells]),
        _spread(recall),
        _spread([report[REPORT]["NDCG@20"] for report in metrics]),
        f"{np.mean(recall) / reported_recall(teacher):.1%}",
        f"{np.mean(small):.4f}" if small else MISSING,
        *(_within(cells, seconds) for seconds in EQUAL_TIMES),
        f"{np.mean([entry['best_epoch'] for entry in training]):.0f}",
        f"{np.mean([_processor_seconds(entry) for entry in training]):.0f}",
        f"{max(entry['peak_memory_bytes'] for entry in training) / 2**20:.0f}",
    ]


def _untrained_row(name: str, cell: Mapping[str, Any], teacher: Mapping[str, Any]) -> list[str]:
    recall = reported_recall(cell)
    per_item = cell["bytes_per_item"]
    return [
        f"*{name}*",
        str(cell["settings"].get("dim", MISSING)),
        MISSING if per_item is None else f"{per_item:,.0f}",
        MISSING,
        f"{validation_recall(cell):.4f}",
        f"{recall:.4f}",
        f"{cell['metrics'][REPORT]['NDCG@20']:.4f}",
        f"{recall / reported_recall(teacher):.1%}",
        *[MISSING] * (2 + len(EQUAL_TIMES)),
        f"{cell['seconds']:.0f}",
        MISSING,
    ]


def _within(cells: Sequence[Mapping[str, Any]], seconds: float) -> str:
    """Mean over seeds of the best validation Recall@20 in a curve's first processor seconds."""
    best = []
    for cell in cells:
        curve = cell["curve"]
        times = curve.get("processor_seconds", curve["seconds"])
        reached = [recall for recall, at in zip(curve["Recall@20"], times, strict=True) if at <= seconds]
        best.append(max(reached, default=0.0))
    return f"{np.mean(best):.4f}"


def _processor_seconds(training: Mapping[str, Any]) -> float:
    """Of a run; one trained before processor time was recorded has its seconds."""
    return float(training.get("processor_seconds", training["seconds"]))


def _trial_rows(
    study: Study, name: str, contestant: Contestant, dim: int, count: int, winner: int, results: Path
) -> list[list[str]]:
    rows = []
    for trial in range(count):
        cell = read_cell(Cell(study, name, dim, trial, study.seeds[0]), results)
        if cell is None:
            continue
        given = ", ".join(f"{key} {value}" for key, value in contestant.trials[trial].items()) or "defaults"
        rows.append(
            [
                name,
                str(dim),
                given,
                f"{validation_recall(cell):.4f}",
                f"{reported_recall(cell):.4f}",
                f"{_processor_seconds(cell['metrics']['training']):.0f}",
                "✓" if trial == winner else "",
            ]
        )
    return rows


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
