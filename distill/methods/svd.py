"""Truncated SVD of a model's scores: the best student without training, and a place to start a training from.

References:
    Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1936.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distill.errors import SettingError


def truncated_svd(
    user_embeddings: npt.NDArray[Any], item_embeddings: npt.NDArray[Any], dim: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Compute the factors of the best rank-`dim` approximation of the score matrix UVᵀ, which is never formed.

    With U = Q_u R_u and V = Q_v R_v, the SVD of the score matrix is that of the small core R_u R_vᵀ.

    Args:
        user_embeddings: U, shape (|U|, d_t).
        item_embeddings: V, shape (|I|, d_t).
        dim: d_s.

    Returns:
        User and item factors, float32, shapes (|U|, d_s) and (|I|, d_s).

    Raises:
        SettingError: `dim` is not from 1 to the rank that the factors can have.
    """
    user_basis, user_core = np.linalg.qr(user_embeddings.astype(np.float64))
    item_basis, item_core = np.linalg.qr(item_embeddings.astype(np.float64))
    left, singular, right = np.linalg.svd(user_core @ item_core.T)
    if not 1 <= dim <= len(singular):
        raise SettingError(f"dim {dim}: must be from 1 to {len(singular)}, the rank of the teacher's scores")
    scale = np.sqrt(singular[:dim])
    users = user_basis @ (left[:, :dim] * scale)
    items = item_basis @ (right[:dim].T * scale)
    return users.astype(np.float32), items.astype(np.float32)
