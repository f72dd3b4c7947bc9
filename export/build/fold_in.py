"""Folding in: a user vector from a history by ridge regression, in NumPy.

The formula is in `export/build/onnx_graphs.py`, which writes it as a graph; `export/build/fold_in_choice.py` chooses
its two weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SMALLEST_RIDGE = 1e-30
"""Keeps the system solvable when every item vector is zero."""


@dataclass(frozen=True)
class FoldInWeights:
    """λ and w.

    Attributes:
        relative_ridge: λ over the mean squared length of the item vectors.
        gram_weight: w.
    """

    relative_ridge: float = 3.0
    gram_weight: float = 1e-2

    def ridge(self, item_embeddings: npt.NDArray[Any]) -> float:
        """λ for these item vectors, shape (I, d)."""
        squares = np.einsum("ij,ij->", item_embeddings, item_embeddings, dtype=np.float64)
        return max(self.relative_ridge * float(squares) / len(item_embeddings), SMALLEST_RIDGE)


def build_whitening(item_embeddings: npt.NDArray[Any], weights: FoldInWeights) -> npt.NDArray[np.float64]:
    """P with PᵀBP = I, B = wG + λI.

    Args:
        item_embeddings: Shape (I, d).
        weights: λ and w.

    Returns:
        float64, shape (d, d).
    """
    values, vectors = np.linalg.eigh(_gram(item_embeddings))
    ridge = weights.ridge(item_embeddings)
    whitening: npt.NDArray[np.float64] = vectors / np.sqrt(weights.gram_weight * np.maximum(values, 0.0) + ridge)
    return whitening


def _gram(item_embeddings: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    wide = item_embeddings.astype(np.float64)
    gram: npt.NDArray[np.float64] = wide.T @ wide
    return gram


def fold_in(history: npt.NDArray[Any], whitening: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The user vector of one history, solved in the H dimensions of the history.

    u = P Wᵀ (I + W Wᵀ)⁻¹ 1, which equals P (I + WᵀW)⁻¹ Wᵀ 1.

    Args:
        history: Item vectors, shape (H, d).
        whitening: P, shape (d, d).

    Returns:
        float64, shape (d,).
    """
    W = history.astype(np.float64) @ whitening
    solved = np.linalg.solve(np.eye(len(W)) + W @ W.T, np.ones(len(W)))
    user: npt.NDArray[np.float64] = whitening @ (W.T @ solved)
    return user
