"""Choosing the two weights of folding in by measurement, on users whose histories and vectors are known.

Both are relative to the item vectors: λ in multiples of their mean squared length, w as it is. What counts is
Recall@20 of users rebuilt from their training items on their validation items.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from export.build.fold_in import FoldInWeights, build_whitening, fold_in
from export.build.quality import measure_quality

RELATIVE_RIDGES = (0.003, 0.03, 0.3, 3.0, 30.0, 300.0)
GRAM_WEIGHTS = (0.0, 1e-3, 1e-2, 1e-1, 1.0)
SAMPLED_USERS = 500


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
