"""Folding in: a user vector from a history by ridge regression, and the choice of its two weights.

The formula is in `export/onnx_graphs.py`. Both weights are chosen relative to the item vectors: λ in
multiples of their mean squared length, w as it is, by Recall@20 of users rebuilt from their training items
on their validation items.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from export.build.quality import measure_quality

RELATIVE_RIDGES = (0.003, 0.03, 0.3, 3.0, 30.0, 300.0)
GRAM_WEIGHTS = (0.0, 1e-3, 1e-2, 1e-1, 1.0)
SAMPLED_USERS = 500
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


def choose_weights(
    item_embeddings: npt.NDArray[Any],
    user_embeddings: npt.NDArray[Any],
    train: sp.csr_matrix,
    validation: sp.csr_matrix,
    rng: np.random.Generator,
) -> tuple[FoldInWeights, dict[str, Any]]:
    """Choose λ and w on a sample of users.

    Args:
        item_embeddings: Shape (I, d).
        user_embeddings: Shape (U, d); only for comparison: what the trained vectors of the same users reach.
        train: CSR of shape (U, I); the histories.
        validation: CSR of shape (U, I); what should be found.
        rng: Draws the sample.

    Returns:
        The weights, and for the manifest: recall@20 reached, that of the trained vectors, number of users.
        Without validation items, the default weights and no recall.
    """
    users = np.flatnonzero((np.diff(train.indptr) > 0) & (np.diff(validation.indptr) > 0))
    if len(users) == 0:
        return FoldInWeights(), {"validation_users": 0}
    users = np.sort(rng.choice(users, size=min(SAMPLED_USERS, len(users)), replace=False))
    histories, wanted = train[users], validation[users]
    trained = measure_quality(user_embeddings[users], item_embeddings, histories, wanted)["recall@20"]
    best, best_recall = FoldInWeights(), -1.0
    grid = [FoldInWeights(ridge, weight) for ridge in RELATIVE_RIDGES for weight in GRAM_WEIGHTS]
    for weights in tqdm(grid, desc="fold-in", unit="setting", disable=None, leave=False):
        folded = _fold_in_all(item_embeddings, histories, build_whitening(item_embeddings, weights))
        recall = measure_quality(folded, item_embeddings, histories, wanted)["recall@20"]
        if recall > best_recall:
            best, best_recall = weights, recall
    return best, {
        "validation_users": len(users),
        "validation_recall@20": best_recall,
        "trained_vectors_validation_recall@20": trained,
    }


def _fold_in_all(
    item_embeddings: npt.NDArray[Any], histories: sp.csr_matrix, whitening: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    starts, rows = histories.indptr, histories.indices
    return np.stack([fold_in(item_embeddings[rows[a:b]], whitening) for a, b in pairwise(starts)]).astype(np.float32)
