"""Scores of each row with a few entities of its own, differentiable, without a (B, K, d) tensor.

Plain indexing makes B K rows of d floats, writes them, reads them, and lets autograd scatter as many back. Here the
rows are gathered a block at a time into a buffer that stays in the cache, the gradient of the owners is an embedding
bag, and that of the others a transposed sparse product: a fifth of the time (4 ms instead of 20 for B = 1,700, K = 80,
d = 20 on one core).

Cost of a call and its gradient: 6 B K d floating-point operations; B K d floats read in each of three passes, none of
them written to memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

BLOCK_BYTES = 2**20
"""A block of gathered rows that a core's own cache holds."""


def selected_scores(table: torch.Tensor, owners: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Inner products ⟨x_b, x_bk⟩ of rows of one table.

    Args:
        table: Shape (N, d); differentiable.
        owners: Its rows x_b, each once, int64 of shape (B,).
        others: Its rows x_bk, none of them an owner, int64 of shape (B, K).

    Returns:
        Shape (B, K).
    """
    apply: Callable[..., torch.Tensor] = _SelectedScores.apply
    return apply(table, owners, others)


class _SelectedScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, owners: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(table, owners, others)
        own = table[owners]
        (rows, width), dim = others.shape, table.shape[1]
        scores = table.new_empty(rows, 1, width)
        block = max(1, BLOCK_BYTES // (table.element_size() * width * dim))
        buffer = table.new_empty(min(block, rows) * width, dim)
        for start in range(0, rows, block):
            part = others[start : start + block]
            gathered = torch.index_select(table, 0, part.reshape(-1), out=buffer[: part.numel()])
            columns = gathered.view(len(part), width, dim).transpose(1, 2)
            torch.bmm(own[start : start + block, None], columns, out=scores[start : start + block])
        return scores.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weights = gradients[0].contiguous()
        table, owners, others = ctx.saved_tensors
        result = _spread(weights, others, table[owners], len(table))
        result[owners] = F.embedding_bag(others, table, per_sample_weights=weights, mode="sum")
        return result, None, None


def _spread(weights: torch.Tensor, others: torch.Tensor, own: torch.Tensor, size: int) -> torch.Tensor:
    """Σ_b w_bk x_b into each row x_bk of a table of `size` rows; the sparse product needs no sort of the indices."""
    rows, width = others.shape
    if weights.device.type == "cpu":
        entries = (weights.numpy().reshape(-1), others.numpy().reshape(-1), np.arange(0, rows * width + 1, width))
        return torch.from_numpy(sp.csc_matrix(entries, shape=(size, rows)) @ own.numpy())
    result = own.new_zeros(size, own.shape[1])
    owners = torch.arange(rows, device=own.device).repeat_interleave(width)
    return result.index_add_(0, others.reshape(-1), own[owners] * weights.reshape(-1, 1))
