"""EASE: the linear item–item model that reconstructs the interactions best, in closed form.

References:
    Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, eq. 8.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.baselines.base import Baseline, from_histories
from distill.errors import SettingError
from distill.evaluation.metrics import Rows
from distill.graph.adjacency import cooccurrence_blocks, row_numbers

EASE_MAX_BYTES = 4 * 2**30


def ease(train: sp.csr_matrix, regularization: float, max_bytes: int = EASE_MAX_BYTES) -> Baseline:
    """Score by the linear item–item model with a zero diagonal that reconstructs R best, in closed form.

    With P = (RᵀR + λI)⁻¹ the weights are B = I − P diag(P)⁻¹ and the scores of a history r are r B. Users can stand in
    for items: with M = (RRᵀ + λI)⁻¹, P = (I − RᵀMR) / λ (Woodbury), so the scores are r − (r P) diag(P)⁻¹, with
    diag(P)_i = (1 − r_iᵀ M r_i) / λ, and r_u P = M_u R for a training user. The smaller side is inverted: n³
    operations, n its size. By users, a training user costs nnz(R) operations to score, and any other history |U| more
    for each user who shares an item with it.

    Args:
        train: R, CSR of ones, shape (|U|, |I|).
        regularization: λ, above 0.
        max_bytes: Bound on what the inversion holds: three float32 matrices of n × n.

    Raises:
        SettingError: It would need more, or λ is not above 0.
    """
    if regularization <= 0:
        raise SettingError(f"regularization: {regularization} is not above 0")
    size = min(train.shape)
    if 12 * size**2 > max_bytes:
        raise SettingError(
            f"ease: inverting {size:,} × {size:,} needs {12 * size**2:,} bytes, and {max_bytes:,} are allowed; "
            "leave it out, or allow more ('evaluate --ease-max-bytes')"
        )
    if train.shape[1] <= train.shape[0]:
        return _ease_by_items(train, regularization)
    return _ease_by_users(train, regularization)


def _inverse(incidence: sp.csr_matrix, regularization: float) -> npt.NDArray[np.float32]:
    """(X Xᵀ + λI)⁻¹ of a CSR of ones."""
    size = incidence.shape[0]
    gram = torch.empty(size, size)
    for start, counts in cooccurrence_blocks(incidence):
        gram[start : start + counts.shape[0]] = torch.from_numpy(counts.toarray())
    gram.diagonal().add_(regularization)
    inverse: npt.NDArray[np.float32] = torch.cholesky_inverse(torch.linalg.cholesky(gram)).numpy()
    return inverse


def _ease_by_items(train: sp.csr_matrix, regularization: float) -> Baseline:
    weights = _inverse(train.T.tocsr(), regularization)
    weights /= -weights.diagonal()
    np.fill_diagonal(weights, 0.0)
    return from_histories(train, lambda histories: histories @ weights, weights.nbytes)


def _ease_by_users(train: sp.csr_matrix, regularization: float) -> Baseline:
    inverse = _inverse(train, regularization)
    item_users = train.T.tocsr()

    def spread(user_weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Weights of training users (B, |U|) → those times R, shape (B, |I|)."""
        product: npt.NDArray[np.float32] = (item_users @ user_weights.T).T
        return product

    explained = np.zeros(train.shape[1])
    for users in np.array_split(np.arange(train.shape[0]), -(-train.shape[0] // 256)):
        taken = train[users]
        projected = spread(inverse[users])
        explained += np.bincount(taken.indices, projected[row_numbers(taken), taken.indices], minlength=train.shape[1])
    scale = (regularization / (1.0 - explained)).astype(np.float32)

    def score_rows(users: Rows) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = train[users].toarray() - spread(inverse[users]) * scale
        return scores

    def score_histories(histories: sp.csr_matrix) -> npt.NDArray[np.float32]:
        taken = histories.toarray()
        projected = (taken - spread((histories @ item_users) @ inverse)) / np.float32(regularization)
        scores: npt.NDArray[np.float32] = taken - projected * scale
        return scores

    return Baseline(score_rows, score_histories, inverse.nbytes + scale.nbytes)
