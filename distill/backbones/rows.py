"""Rows of a table of embeddings, and their gradient: as large as the table, or of the touched rows alone.

A step touches thousands of rows. Where the table has millions, a gradient of its shape costs a hundred times the step, so
a table that `mark_row_sparse` marked is given a sparse one (COO, not coalesced: a row may stand there several times).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

Part = tuple[torch.Tensor, torch.Tensor]
"""Rows of a table, int64 of shape (n,), repeated as they may be, and what is added to each, shape (n, d)."""


def mark_row_sparse(table: torch.Tensor) -> None:
    """Ask for sparse gradients of a table, a leaf of autograd."""
    table.is_row_sparse = True  # type: ignore[attr-defined]


def is_row_sparse(table: torch.Tensor) -> bool:
    """Say whether `mark_row_sparse` marked it; what is computed from a table never is."""
    return getattr(table, "is_row_sparse", False)


def gather_rows(table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Read rows, differentiably.

    Args:
        table: Shape (N, d).
        rows: int64 of any shape.

    Returns:
        Shape (*rows.shape, d).
    """
    return F.embedding(rows, table, sparse=True) if is_row_sparse(table) else table[rows]


def sum_into_rows(shape: tuple[int, int], parts: Sequence[Part], *, sparse: bool) -> torch.Tensor:
    """Make the gradient of a table.

    Args:
        shape: (N, d).
        parts: What is added to which rows.
        sparse: Return it in sparse form.
    """
    if sparse:
        rows, values = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)
    result = parts[0][1].new_zeros(shape)
    for rows, values in parts:
        result.index_add_(0, rows, values)
    return result
