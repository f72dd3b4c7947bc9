"""The first table of RESULTS.md: what each contestant keeps of its teacher, a row a study and dimension."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from results.cells import TEACHER, Cell, read_cell, reported_recall, validation_recall, winning_cells
from results.plan import Plan, Study, num_trials
from results.tables import MISSING, render_table

Shares = npt.NDArray[np.float64]


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
    rows, means = [], []
    for study in plan.studies:
        teacher = read_cell(Cell(study, TEACHER), results)
        if teacher is None:
            continue
        for dim in study.contestants_by_dim:
            kept = [_shares(plan, study, name, dim, teacher, results) for name in plan.summary]
            if any(map(len, kept)):
                columns = (study.name, str(teacher["config"]["dim"]), f"{reported_recall(teacher):.4f}", str(dim))
                rows.append([*columns, *(_spread(shares[:, 0]) for shares in kept)])
            if dim == study.dim:
                means.append([shares.mean(axis=0) if len(shares) else np.full(2, np.nan) for shares in kept])
    if len(means) > 1:
        for title, over_studies in zip(("all, test", "all, validation"), np.mean(means, axis=0).T, strict=True):
            rows.append([title, "", "", "", *(MISSING if np.isnan(mean) else f"{mean:.1%}" for mean in over_studies)])
    header = ("study", "d_t", "teacher's test Recall@20", "d", *plan.summary)
    return render_table(header, rows) if rows else ""


def _shares(plan: Plan, study: Study, name: str, dim: int, teacher: Mapping[str, Any], results: Path) -> Shares:
    """What each seed kept of the teacher's Recall@20, test and validation: shape (S, 2), S 0 where nothing ran."""
    cells = []
    if name in study.untrained_at(dim):
        built = read_cell(Cell(study, name, dim), results)
        cells = [built] if built is not None else []
    elif name in study.contestants_by_dim[dim]:
        _, cells = winning_cells(study, name, dim, num_trials(plan, study, name), results)
    qualities = (reported_recall, validation_recall)
    return np.array([[quality(cell) / quality(teacher) for quality in qualities] for cell in cells]).reshape(-1, 2)


def _spread(shares: Shares) -> str:
    if not len(shares):
        return MISSING
    spread = f" ± {np.std(shares, ddof=1):.1%}" if len(shares) > 1 else ""
    return f"{np.mean(shares):.1%}{spread}"
