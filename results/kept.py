"""What a contestant or an untrained model keeps of its study's teacher, for all tables and figures of shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from results.cells import TEST, VALIDATION, Cell, Cells, Row, winning_cells
from results.plan import Plan, Study, num_trials

MISSING = "–"

Shares = npt.NDArray[np.float64]


def rows_of(plan: Plan, study: Study, name: str, dim: int, cells: Cells) -> list[Row]:
    """The rows that stand for a name: one a seed of the winning trial, one of an untrained model, or none yet."""
    if name in study.untrained_at(dim):
        built = cells.get(Cell(study, name, dim).name)
        return [] if built is None else [built]
    if name not in study.contestants_by_dim.get(dim, ()):
        return []
    return winning_cells(study, name, dim, num_trials(plan, study, name), cells)[1]


def kept_shares(rows: Sequence[Row], teacher: Row) -> Shares:
    """What each row keeps of the teacher's Recall@20, test and validation: shape (S, 2)."""
    return np.array([[row[column] / teacher[column] for column in (TEST, VALIDATION)] for row in rows]).reshape(-1, 2)


def share_and_spread(shares: Shares) -> str:
    """Mean ± sample standard deviation of shares (S,), in percent; a dash where there is none."""
    if not len(shares):
        return MISSING
    spread = f" ± {np.std(shares, ddof=1):.1%}" if len(shares) > 1 else ""
    return f"{np.mean(shares):.1%}{spread}"
