"""The first table of RESULTS.md: what each contestant keeps of its teacher, a row a study and dimension."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.evidence.cells import TEACHER, Cell, read_cell, winning_cells
from export.evidence.plan import Plan, Study, num_trials
from export.evidence.tables import MISSING, REPORT, render_table


def render_summary(plan: Plan, results: Path) -> str:
    """Share kept of the teacher's test Recall@20, mean ± sample standard deviation over seeds, in Markdown.

    Args:
        plan: Its `summary` names the columns.
        results: The cells.

    Returns:
        Empty where no study has its teacher.
    """
    rows = []
    for study in plan.studies:
        teacher = read_cell(Cell(study, TEACHER), results)
        if teacher is None:
            continue
        recall = teacher["metrics"][REPORT]["Recall@20"]
        for dim in study.contestants_by_dim:
            kept = [_kept(plan, study, name, dim, recall, results) for name in plan.summary]
            if any(cell != MISSING for cell in kept):
                rows.append([study.name, str(teacher["config"]["dim"]), f"{recall:.4f}", str(dim), *kept])
    header = ("study", "d_t", "teacher's test Recall@20", "d", *plan.summary)
    return render_table(header, rows) if rows else ""


def _kept(plan: Plan, study: Study, name: str, dim: int, recall: float, results: Path) -> str:
    cells = []
    if name in study.untrained_at(dim):
        built = read_cell(Cell(study, name, dim), results)
        cells = [built] if built is not None else []
    elif name in study.contestants_by_dim[dim]:
        _, cells = winning_cells(study, name, dim, num_trials(plan, study, name), results)
    shares = [cell["metrics"][REPORT]["Recall@20"] / recall for cell in cells]
    if not shares:
        return MISSING
    spread = f" ± {np.std(shares, ddof=1):.1%}" if len(shares) > 1 else ""
    return f"{np.mean(shares):.1%}{spread}"
