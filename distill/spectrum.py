"""Exact frequency analysis on small graphs: what Theorem 1 of FreqD says, as numbers.

Knowledge of frequency k is u_k u_kᵀ X, where u_k is the k-th eigenvector of L = I − Â and its eigenvalue λ_k the
frequency (arXiv 2411.10676). The u_k are orthonormal, so a feature loss splits into one part a frequency
(Theorem 1), and a filter h(L) weighs part k by h(λ_k)².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.errors import SettingError
from distill.graph import laplacian

MAX_ENTITIES = 6000
"""The eigenbasis is dense: 8 N² bytes, 288 MB at this bound, and O(N³) time."""

Values = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """The eigenbasis of L.

    Attributes:
        frequencies: λ_k, ascending, in [0, 2], shape (N,).
        eigenvectors: u_k in column k, orthonormal, shape (N, N).
    """

    frequencies: Values
    eigenvectors: Values


def exact_spectrum(normalized_adjacency: sp.csr_matrix) -> Spectrum:
    """Compute all frequencies of a small graph.

    Args:
        normalized_adjacency: Â, symmetric CSR of shape (N, N).

    Returns:
        The eigenbasis of L = I − Â.

    Raises:
        SettingError: N exceeds `MAX_ENTITIES`.
    """
    size = normalized_adjacency.shape[0]
    if size > MAX_ENTITIES:
        raise SettingError(
            f"spectrum: {size:,} entities exceed the {MAX_ENTITIES:,} of an exact eigenbasis; take a smaller data set"
        )
    frequencies, eigenvectors = np.linalg.eigh(laplacian(normalized_adjacency).toarray().astype(np.float64))
    return Spectrum(frequencies, eigenvectors)


def knowledge_losses(eigenvectors: Values, teacher: Features, projected_student: Features) -> Values:
    """‖u_kᵀ(X_t − P(X_s))‖² for every frequency k; they sum to ‖X_t − P(X_s)‖² (Theorem 1).

    Args:
        eigenvectors: u_k in column k, shape (N, N).
        teacher: X_t, shape (N, d_t).
        projected_student: P(X_s), shape (N, d_t).

    Returns:
        Shape (N,).
    """
    gap = teacher.astype(np.float64) - projected_student.astype(np.float64)
    losses: Values = np.square(eigenvectors.T @ gap).sum(axis=1)
    return losses
