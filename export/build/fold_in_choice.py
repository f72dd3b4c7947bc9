"""Choosing the two settings of folding in by measurement, on users whom the fit has not seen.

What counts is Recall@20 on their validation items of users rebuilt from their training items, averaged over whole
histories and histories cut short, because new users come with few items.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from distill.graph.adjacency import row_numbers
from export.build.fold_in import FoldInSettings, fit_fold_in, fold_in
from export.build.quality import measure_quality

SHRINKAGES = (0.01, 0.1, 1.0, 10.0)
DROPPED = (0.3, 1.0, 3.0, 10.0)
SAMPLED_USERS = 500
SAMPLED_SHARE = 0.2
"""Most of the users to leave out of a fit, so that it resembles the one that counts."""
SHORT = (3, 10)
"""Numbers of items to which histories are cut."""
RECALL = "validation_recall@20"

Measured = Mapping[str, float]


def choose_settings(
    item_embeddings: npt.NDArray[Any],
    user_embeddings: npt.NDArray[Any],
    train: sp.csr_matrix,
    validation: sp.csr_matrix,
    rng: np.random.Generator,
) -> tuple[FoldInSettings, dict[str, Any]]:
    """Choose λ and c on a sample of users, left out of the fits.

    Args:
        item_embeddings: Shape (I, d).
        user_embeddings: Shape (U, d).
        train: CSR of shape (U, I); the histories.
        validation: CSR of shape (U, I); what should be found.
        rng: Draws the sample, and the items of short histories.

    Returns:
        The settings, and for the manifest: recall@20 of the sampled users' whole and short histories, that of their
        trained vectors, and their number. Without validation items, the default settings and no recall.
    """
    users = np.flatnonzero((np.diff(train.indptr) > 0) & (np.diff(validation.indptr) > 0))
    if len(users) < 2:
        return FoldInSettings(), {"validation_users": 0}
    size = min(SAMPLED_USERS, max(1, int(SAMPLED_SHARE * len(users))))
    users = np.sort(rng.choice(users, size=size, replace=False))
    others = np.setdiff1d(np.arange(train.shape[0]), users)
    whole, wanted = train[users], validation[users]
    histories = {RECALL: whole} | {f"{RECALL}_of_{length}": cut_histories(whole, length, rng) for length in SHORT}

    def recall(vectors: npt.NDArray[Any]) -> float:
        return measure_quality(vectors, item_embeddings, whole, wanted)["recall@20"]

    def measure(settings: FoldInSettings) -> Measured:
        table = fit_fold_in(train[others], user_embeddings[others], settings)
        vectors = {name: fold_in(cut, table) for name, cut in histories.items()}
        return {name: recall(folded) for name, folded in vectors.items()}

    grid = [FoldInSettings(*pair) for pair in product(SHRINKAGES, DROPPED)]
    bar = tqdm(grid, desc="fold-in", unit="setting", disable=None, leave=False)
    measured = {settings: measure(settings) for settings in bar}
    best = max(grid, key=lambda settings: sum(measured[settings].values()))
    trained = recall(user_embeddings[users])
    return best, {"validation_users": size, **measured[best], f"trained_vectors_{RECALL}": trained}


def cut_histories(histories: sp.csr_matrix, length: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Keep at most `length` items of each row, drawn at random; CSR of ones of the same shape."""
    owners = row_numbers(histories)
    drawn = np.lexsort((rng.random(histories.nnz), owners))
    places = np.arange(histories.nnz) - histories.indptr[owners]
    kept = np.sort(drawn[places < length])
    pairs = (owners[kept], histories.indices[kept])
    return sp.csr_matrix((np.ones(len(kept), dtype=np.float32), pairs), shape=histories.shape)
