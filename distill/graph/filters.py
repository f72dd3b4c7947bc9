"""Polynomial graph filters h(L) = Σ_p c_p L^p, applied to a whole feature matrix or to the rows of a batch.

References:
    FreqD, arXiv 2411.10676: h(λ) = 1 − αλ, so h(L) = (1 − α) I + α Â with L = I − Â.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from distill.errors import SettingError
from distill.graph.adjacency import laplacian
from distill.rows import is_row_sparse, spread_into_rows

MAX_NONZEROS = 400_000_000
BLOCK_NUMBERS = 2**24
"""Of rows that are filtered at a time, 64 MB: 65,536 rows of 256 numbers."""


def linear_coefficients(alpha: float) -> tuple[float, ...]:
    """Return the coefficients of h(λ) = 1 − αλ, FreqD's linear filter."""
    return (1.0, -alpha)


def quadratic_coefficients(alpha: float) -> tuple[float, ...]:
    """Return the coefficients of h(λ) = (1 − αλ)²: the linear filter applied twice."""
    return (1.0, -2.0 * alpha, alpha * alpha)


def response(coefficients: Sequence[float], frequencies: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Evaluate h(λ) = Σ_p c_p λ^p at frequencies of any shape."""
    values: npt.NDArray[np.float64] = np.polynomial.Polynomial(list(coefficients))(frequencies.astype(np.float64))
    return values


class GraphFilter(nn.Module):
    """h(L) as one sparse matrix; a module without parameters, so that it moves to a device with its method.

    Attributes:
        matrix: h(L), CSR of shape (N, N), float32.
        coefficients: c_0, c_1, …
    """

    def __init__(self, normalized_adjacency: sp.csr_matrix, coefficients: Sequence[float]) -> None:
        """Build h(L) by Horner's rule on sparse matrices.

        Args:
            normalized_adjacency: Â, CSR of shape (N, N).
            coefficients: c_0, c_1, … of h(λ) = Σ_p c_p λ^p.

        Raises:
            SettingError: No coefficients, or the matrix would exceed `MAX_NONZEROS` entries.
        """
        super().__init__()
        if not len(coefficients):
            raise SettingError("coefficients: a graph filter needs at least one")
        size = normalized_adjacency.shape[0]
        identity = sp.eye_array(size, dtype=np.float32, format="csr")
        lap = laplacian(normalized_adjacency)
        matrix = sp.csr_matrix(identity * np.float32(coefficients[-1]))
        for coefficient in reversed(coefficients[:-1]):
            _check_fill_in(matrix, lap)
            matrix = sp.csr_matrix(matrix @ lap + identity * np.float32(coefficient))
        matrix.eliminate_zeros()
        matrix.sort_indices()
        self.matrix = sp.csr_matrix(matrix, dtype=np.float32)
        self.coefficients = tuple(coefficients)
        self._indptr: torch.Tensor
        self._indices: torch.Tensor
        self._weights: torch.Tensor
        for name, values in (("_indptr", self.matrix.indptr), ("_indices", self.matrix.indices)):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        self.register_buffer("_weights", torch.from_numpy(self.matrix.data), persistent=False)

    def filter_all(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Filter a whole feature matrix, shape (N, d): the same shape, float32."""
        return np.asarray(self.matrix @ features, dtype=np.float32)

    def filter_blocks(self, features: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the same by blocks of rows, for whoever keeps less than all of it."""
        rows = max(1, BLOCK_NUMBERS // max(1, features.shape[1]))
        for start in range(0, len(features), rows):
            yield np.asarray(self.matrix[start : start + rows] @ features, dtype=np.float32)

    def rows(
        self, batch: torch.Tensor, *, keep_prob: float = 1.0, generator: torch.Generator | None = None
    ) -> FilterRows:
        """Take the rows of h(L) that a batch needs.

        Args:
            batch: Entity rows, int64 of shape (B,).
            keep_prob: Probability of keeping an edge; kept ones are scaled by its inverse, self weights stay.
            generator: Randomness of the edge dropout.

        Returns:
            The rows, ready to be applied to any feature matrix.
        """
        neighbors, weights, offsets = self._slice(batch)
        if keep_prob < 1.0:
            bounds = torch.cat([offsets, offsets.new_tensor([len(neighbors)])])
            is_self = neighbors == torch.repeat_interleave(batch, bounds.diff())
            kept = torch.rand(len(weights), generator=generator, device=batch.device) < keep_prob
            weights = torch.where(is_self, weights, weights * kept / keep_prob)
        return FilterRows(neighbors, weights, offsets)

    def _slice(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if batch.device.type == "cpu":
            # SciPy copies row slices seven times faster than index arithmetic finds their places.
            part = self.matrix[batch.numpy()]
            return torch.from_numpy(part.indices), torch.from_numpy(part.data), torch.from_numpy(part.indptr[:-1])
        starts = self._indptr[batch].long()
        lengths = self._indptr[batch + 1] - starts
        offsets = torch.cumsum(lengths, 0) - lengths
        places = torch.arange(int(lengths.sum()), device=batch.device)
        places += torch.repeat_interleave(starts - offsets, lengths)
        return self._indices[places].long(), self._weights[places], offsets


class FilterRows:
    """Rows of h(L) for one batch: an embedding bag over each entity's neighbours."""

    def __init__(self, neighbors: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor) -> None:
        """Take over the bag.

        Args:
            neighbors: Entity rows, integers of shape (E,).
            weights: float32 of shape (E,).
            offsets: Where each of the B bags starts, integers of the same width, shape (B,).
        """
        self.neighbors = neighbors
        self.weights = weights
        self.offsets = offsets

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """Compute h(L)[batch] · X for X of shape (N, d): shape (B, d), differentiable in X."""
        bag: Callable[..., torch.Tensor] = _WeightedBag.apply
        return bag(features, self.neighbors, self.weights, self.offsets)

    def localize(self) -> tuple[torch.Tensor, FilterRows]:
        """Renumber the neighbours, so that only they need features.

        Returns:
            (entity rows, integers of shape (M,), sorted; the same bag over those M rows).
        """
        entities, local = torch.unique(self.neighbors, return_inverse=True)
        return entities, FilterRows(local.to(self.offsets.dtype), self.weights, self.offsets)


class _WeightedBag(torch.autograd.Function):
    """H X for a block H of sparse rows, differentiable in X."""

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        neighbors: torch.Tensor,
        weights: torch.Tensor,
        offsets: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(neighbors, weights, offsets)
        ctx.num_entities, ctx.sparse = len(features), is_row_sparse(features)
        return F.embedding_bag(neighbors, features, offsets, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        result = spread_into_rows(ctx.num_entities, gradients[0], ctx.saved_tensors, sparse=ctx.sparse)
        return result, None, None, None


def _check_fill_in(left: sp.csr_matrix, right: sp.csr_matrix) -> None:
    products = int(np.diff(right.indptr)[left.indices].sum())
    if products > MAX_NONZEROS:
        raise SettingError(
            f"filter: this polynomial of the graph may have {products:,} entries, over the bound of "
            f"{MAX_NONZEROS:,}; use the linear filter, or a co-occurrence graph with fewer neighbours"
        )
