"""The first table of RESULTS.md: what each contestant keeps of its teacher, a row a study and dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.evidence.cells import TEACHER, Cell, read_cell, validation_recall, winning_cells
from export.evidence.plan import Plan, Study, num_trials
from export.evidence.tables import MISSING, REPORT, render_table

Quality = Callable[[Mapping[str, Any]], float]


def render_summary(plan: Plan, results: Path) -> str:
    """Share kept of the teacher's test Recall@20, mean ± sample standard deviation over seeds, in Markdown.

    Where there are several studies, two rows at the end give the mean over them at their first dimension, of test and
    of validation, for contestants that each study has.

    Args:
        plan: Its `summary` names the columns.
        results: The cells.

    Returns:
        Empty where no study has its teacher.
    """
    rows = []
    found = ((study, read_cell(Cell(study, TEACHER), results)) for study in plan.studies)
    teachers = [(study, teacher) for study, teacher in found if teacher is not None]
    for study, teacher in teachers:
        for dim in study.contestants_by_dim:
            kept = [_spread(_shares(plan, study, name, dim, _test_recall, results)) for name in plan.summary]
            if any(cell != MISSING for cell in kept):
                columns = (study.name, str(teacher["config"]["dim"]), f"{_test_recall(teacher):.4f}", str(dim))
                rows.append([*columns, *kept])
    if len(teachers) > 1:
        studies = [study for study, _ in teachers]
        for title, quality in (("all, test", _test_recall), ("all, validation", validation_recall)):
            means = [_mean_over_studies(plan, studies, name, quality, results) for name in plan.summary]
            rows.append([title, "", "", "", *means])
    header = ("study", "d_t", "teacher's test Recall@20", "d", *plan.summary)
    return render_table(header, rows) if rows else ""


def _test_recall(cell: Mapping[str, Any]) -> float:
    return float(cell["metrics"][REPORT]["Recall@20"])


def _shares(plan: Plan, study: Study, name: str, dim: int, quality: Quality, results: Path) -> list[float]:
    """What each seed kept of the teacher's quality; empty where it has not been run."""
    cells = []
    if name in study.untrained_at(dim):
        built = read_cell(Cell(study, name, dim), results)
        cells = [built] if built is not None else []
    elif name in study.contestants_by_dim[dim]:
        _, cells = winning_cells(study, name, dim, num_trials(plan, study, name), results)
    teacher = read_cell(Cell(study, TEACHER), results)
    return [quality(cell) / quality(teacher) for cell in cells] if teacher is not None else []


def _mean_over_studies(plan: Plan, studies: list[Study], name: str, quality: Quality, results: Path) -> str:
    shares = [_shares(plan, study, name, study.dim, quality, results) for study in studies]
    return f"{np.mean([np.mean(seeds) for seeds in shares]):.1%}" if all(shares) else MISSING


def _spread(shares: list[float]) -> str:
    if not shares:
        return MISSING
    spread = f" ± {np.std(shares, ddof=1):.1%}" if len(shares) > 1 else ""
    return f"{np.mean(shares):.1%}{spread}"
