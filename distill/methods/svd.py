"""Truncated SVD of a model's scores: the best student without training, and a place to start a training from.

References:
    Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1936.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.errors import SettingError
from distill.finite import blocks_of_rows

Embeddings = npt.NDArray[Any]
Core = npt.NDArray[np.float64]
Project = Callable[[Core], npt.NDArray[np.float32]]
GRAM_ROWS = 200_000
"""Users and items together, from which their embeddings are not copied: in float64, with their basis, a million rows of
256 numbers take 4 GB."""
NEGLIGIBLE = 1e-4
"""Share of the longest direction below which float32 sums say nothing of another."""


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
    sides = (user_embeddings, item_embeddings)
    factor = _orthogonalise if len(user_embeddings) + len(item_embeddings) < GRAM_ROWS else _orthogonalise_by_gram
    (user_core, project_users), (item_core, project_items) = map(factor, sides)
    left, singular, right = np.linalg.svd(user_core @ item_core.T)
    if not 1 <= dim <= len(singular):
        raise SettingError(f"dim {dim}: must be from 1 to {len(singular)}, the rank of the teacher's scores")
    scale = np.sqrt(singular[:dim])
    return project_users(left[:, :dim] * scale), project_items(right[:dim].T * scale)


def _orthogonalise(embeddings: Embeddings) -> tuple[Core, Project]:
    """Return R of E = Q R, and how a core's directions become rows: Q times them."""
    basis, core = np.linalg.qr(embeddings.astype(np.float64))
    return core, lambda directions: (basis @ directions).astype(np.float32)


def _orthogonalise_by_gram(embeddings: Embeddings) -> tuple[Core, Project]:
    """The same without a copy of E, from EᵀE = W Λ Wᵀ: R = Λ^½ Wᵀ and Q = E W Λ^-½. It errs where Λ is tiny."""
    gram = np.zeros((embeddings.shape[1],) * 2)
    for _, block in blocks_of_rows(embeddings):
        rows = block.astype(np.float32, copy=False)
        gram += rows.T @ rows
    squares, turn = np.linalg.eigh(gram)
    lengths = np.sqrt(squares.clip(min=0))
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > lengths[-1] * NEGLIGIBLE)

    def project(directions: Core) -> npt.NDArray[np.float32]:
        matrix = ((turn * inverse) @ directions).astype(np.float32)
        return np.concatenate(
            [block.astype(np.float32, copy=False) @ matrix for _, block in blocks_of_rows(embeddings)]
        )

    return lengths[:, None] * turn.T, project
