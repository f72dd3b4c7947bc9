"""Rows of a table of embeddings, and their gradient: as large as the table, or of the touched rows alone.

A step touches thousands of rows. Where the table has millions, a gradient of its shape costs a hundred times the step,
so a table that `mark_row_sparse` marked is given a sparse one (COO, not coalesced: a row may stand there twice).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

SPARSE_FLAGS = 64
"""Up to so many rows of a table for each row that is looked up, flags for all of them are quicker than a sort."""
LARGE_TABLE = 16 * 2**20
"""Bytes from which a table is laid on pages of 2 MiB."""
Part = tuple[torch.Tensor, torch.Tensor]
"""Rows of a table, int64 of shape (n,), repeated as they may be, and what is added to each, shape (n, d)."""


def empty_table(num_rows: int, dim: int) -> torch.Tensor:
    """Take memory for a float32 table, shape (N, d), on huge pages where it is large and the system has them (Linux).

    Rows read at random miss the page table's cache with nearly each row: with pages of 4 KiB a step of two million rows
    took a quarter longer.
    """
    size = 4 * num_rows * dim
    if size < LARGE_TABLE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(num_rows, dim)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel built without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).view(num_rows, dim)


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


def distinct_rows(rows: torch.Tensor, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find which rows of a table there are.

    Args:
        rows: Integers of shape (n,).
        num_rows: N.

    Returns:
        Those there are, ascending, int64 of shape (m,), and the place of each of `rows` among them, shape (n,).
    """
    if rows.device.type != "cpu" or num_rows > SPARSE_FLAGS * len(rows):
        distinct, places = torch.unique(rows, return_inverse=True)
        return distinct.long(), places
    is_there = np.zeros(num_rows, dtype=np.bool_)
    is_there[rows.numpy()] = True
    found = np.flatnonzero(is_there)
    place = np.empty(num_rows, dtype=np.int64)
    place[found] = np.arange(len(found))
    return torch.from_numpy(found), torch.from_numpy(place.take(rows.numpy()))


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


def spread_into_rows(
    num_rows: int, sources: torch.Tensor, bags: tuple[torch.Tensor, torch.Tensor, torch.Tensor], *, sparse: bool
) -> torch.Tensor:
    """Make the gradient of a table whose rows were summed up in bags: Σ w x_b into each row of bag b.

    On a CPU it is a transposed sparse product, which needs no sort of the rows; torch's own gradient of `embedding_bag`
    takes fifty times its forward pass.

    Args:
        num_rows: N.
        sources: x_b, the gradient of each bag, shape (B, d).
        bags: Rows of the table, integers of shape (E,); their weights w, shape (E,); where each bag starts, shape (B,).
        sparse: Return it in sparse form, each row once.

    Returns:
        Shape (N, d).
    """
    rows, weights, offsets = bags
    if sparse:
        touched, rows = distinct_rows(rows, num_rows)
        summed = spread_into_rows(len(touched), sources, (rows, weights, offsets), sparse=False)
        return sum_into_rows((num_rows, sources.shape[1]), [(touched, summed)], sparse=True)
    if sources.device.type == "cpu":
        indptr = np.append(offsets.numpy(), len(rows))
        transposed = sp.csc_matrix((weights.numpy(), rows.numpy(), indptr), shape=(num_rows, len(offsets)))
        return torch.from_numpy(transposed @ sources.numpy())
    ends = torch.cat([offsets[1:], offsets.new_tensor([len(rows)])])
    owners = torch.repeat_interleave(torch.arange(len(offsets), device=offsets.device), ends - offsets)
    return sum_into_rows((num_rows, sources.shape[1]), [(rows, sources[owners] * weights[:, None])], sparse=False)
