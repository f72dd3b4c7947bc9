"""Folding in: a user vector for any history, from one table of item vectors that is fitted at export.

Someone with the items h of a history of length H has the vector u = (1/H) Σ_h e_h, linear in the history. The table E
comes from the users who are known twice, by a history and by the vector x_u that training gave them: a ridge
regression from the one to the other. With R̄ the training interactions, each user's row divided by its length, and x̄
the mean user vector,

    E = 1x̄ᵀ + D,    D = argmin ‖R̄D − (X − 1x̄ᵀ)‖² + λ‖D‖² + c Σ_i g_i‖d_i‖²,    g = diag(R̄ᵀR̄).

An item that nobody has leads to x̄, and λ draws items that few have towards it. The last term is what it costs on
average to leave out items of the histories at random, c of them for each that stays, without drawing any: histories to
be folded in are shorter than those of training. The solution D = (R̄ᵀR̄ + Λ)⁻¹ R̄ᵀ(X − 1x̄ᵀ), Λ = λI + c diag(g), is a
rational low-pass filter on the graph of items that share users.

References:
    Steck, "Autoencoders that don't overfit towards the identity", NeurIPS 2020 (dropout as a weighted ridge).
    Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

RELATIVE_RESIDUAL = 1e-3
"""Of every column; a thousandth of it moves Recall@20 by less than one user's."""
MAX_STEPS = 100
BLOCK_NUMBERS = 2**26
"""Of the columns that are solved for together, 256 MB: all of them up to a million items of 64 numbers."""
_SMALLEST = 1e-30

Table = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FoldInSettings:
    """λ and c.

    Attributes:
        shrinkage: λ over the mean of g.
        dropped: c, items left out for each that stays.
    """

    shrinkage: float = 1.0
    dropped: float = 3.0


def average_histories(histories: sp.csr_matrix) -> sp.csr_matrix:
    """R̄: every row of R, CSR of ones, divided by its length; float32 of the same shape."""
    lengths = np.diff(histories.indptr)
    values = np.repeat(1.0 / np.maximum(lengths, 1), lengths).astype(np.float32)
    return sp.csr_matrix((values, histories.indices, histories.indptr), shape=histories.shape)


def fold_in(histories: sp.csr_matrix, table: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The user vectors of histories; zeros for an empty one.

    Args:
        histories: CSR of ones, shape (B, I).
        table: E, shape (I, d).

    Returns:
        Shape (B, d).
    """
    vectors: npt.NDArray[np.float32] = average_histories(histories) @ np.asarray(table, dtype=np.float32)
    return vectors


def fit_fold_in(train: sp.csr_matrix, user_embeddings: npt.NDArray[Any], settings: FoldInSettings) -> Table:
    """Fit the table E.

    Args:
        train: R, CSR of ones, shape (U, I); users without items teach nothing.
        user_embeddings: X, shape (U, d).
        settings: λ and c.

    Returns:
        float32, shape (I, d).
    """
    return FoldInProblem(train, user_embeddings).solve(settings)


class FoldInProblem:
    """All of the regression that no setting changes: R̄, its transpose, g, x̄ and R̄ᵀ(X − 1x̄ᵀ).

    A solution takes some 5 to 30 steps of conjugate gradients, each of 4 d nnz(R) operations, and five arrays of the
    table's shape, of at most `BLOCK_NUMBERS` numbers each.

    Args:
        train: R, CSR of ones, shape (U, I); users without items teach nothing.
        user_embeddings: X, shape (U, d).
    """

    def __init__(self, train: sp.csr_matrix, user_embeddings: npt.NDArray[Any]) -> None:
        known = np.flatnonzero(np.diff(train.indptr))
        vectors = np.asarray(user_embeddings[known] if len(known) else user_embeddings, dtype=np.float32)
        self._num_known, self._mean = len(known), vectors.mean(axis=0)
        self._averaged = average_histories(train[known])
        self._by_item = self._averaged.T.tocsr()
        self._g = np.asarray(self._averaged.multiply(self._averaged).sum(axis=0), dtype=np.float32).ravel()
        vectors = vectors - self._mean if len(known) else vectors[:0]
        self._right: Table = self._by_item @ vectors

    def solve(self, settings: FoldInSettings) -> Table:
        """Fit the table E, float32 of shape (I, d)."""
        num_items, dim = self._right.shape
        if not self._num_known:
            return np.tile(self._mean, (num_items, 1))
        g = self._g
        penalty = np.maximum(settings.shrinkage * g.mean() + settings.dropped * g, _SMALLEST)[:, None]
        # The diagonal of the system scales it, so that items with many users and with few converge alike.
        scale = 1 / np.sqrt(g[:, None] + penalty)

        def multiply(columns: Table) -> Table:
            unscaled = scale * columns
            product: Table = scale * (self._by_item @ (self._averaged @ unscaled) + penalty * unscaled)
            return product

        table = np.empty((num_items, dim), dtype=np.float32)
        width = max(1, BLOCK_NUMBERS // num_items)
        for start in range(0, dim, width):
            part = slice(start, start + width)
            table[:, part] = self._mean[part] + scale * _solve(multiply, scale * self._right[:, part])
        return table


def _solve(multiply: Callable[[Table], Table], right: Table) -> Table:
    """Conjugate gradients, every column for itself."""
    solution, residual, direction = np.zeros_like(right), right.copy(), right.copy()
    squared = _square(residual)
    enough = RELATIVE_RESIDUAL**2 * squared
    for _ in range(MAX_STEPS):
        if (squared <= enough).all():
            break
        product = multiply(direction)
        curvature = np.einsum("ij,ij->j", direction, product, dtype=np.float64)
        length = (squared / np.maximum(curvature, _SMALLEST)).astype(np.float32)
        solution += length * direction
        residual -= length * product
        before, squared = squared, _square(residual)
        direction = residual + (squared / np.maximum(before, _SMALLEST)).astype(np.float32) * direction
    return solution


def _square(columns: Table) -> npt.NDArray[np.float64]:
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->j", columns, columns, dtype=np.float64)
    return squares
