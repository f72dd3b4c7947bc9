"""Exact frequency analysis on small graphs: what Theorem 1 of FreqD says, as numbers.

Knowledge of frequency k is u_k u_kᵀ X, where u_k is the k-th eigenvector of L = I − Â and its eigenvalue λ_k the
frequency (arXiv 2411.10676). The u_k are orthonormal, so a feature loss splits into one part a frequency
(Theorem 1), and a filter h(L) weighs part k by h(λ_k)². A knowledge group is a set of neighbouring frequencies.

Two facts of these graphs matter to a reader of the numbers. An entity without an edge has the frequency 1, for its
row of Â is empty. And the bipartite graph has at least ||I| − |U|| frequencies of exactly 1, so equal widths should
come in an odd number, which puts that frequency into the middle of a group and not on a boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp

from distill.errors import SettingError
from distill.graph.adjacency import laplacian

MAX_ENTITIES = 6000
"""The eigenbasis is dense: 8 N² bytes, 288 MB at this bound (four times that while it is computed), O(N³) time."""
MAX_FREQUENCY = 2.0
SAME_FREQUENCY = 1e-6
"""Eigenvalues nearer than this are one frequency: Â is float32, which moves them by about 1e-7."""

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
    """Compute the eigenbasis of L = I − Â of a small graph, given Â, symmetric CSR of shape (N, N).

    Raises:
        SettingError: N exceeds `MAX_ENTITIES`.
    """
    size = normalized_adjacency.shape[0]
    if size > MAX_ENTITIES:
        raise SettingError(
            f"spectrum: {size:,} entities exceed the {MAX_ENTITIES:,} of an exact eigenbasis; "
            "take groups of equal width, or a smaller data set"
        )
    dense = laplacian(normalized_adjacency).astype(np.float64).toarray()
    frequencies, eigenvectors = scipy.linalg.eigh(dense, overwrite_a=True, check_finite=False, driver="evd")
    return Spectrum(frequencies, eigenvectors)


def knowledge_energies(eigenvectors: Values, features: Features) -> Values:
    """Compute ‖u_kᵀ X‖² for every frequency k; they sum to ‖X‖².

    Args:
        eigenvectors: u_k in column k, shape (N, N).
        features: X, shape (N, d).

    Returns:
        Shape (N,).
    """
    energies: Values = np.square(eigenvectors.T @ features.astype(np.float64)).sum(axis=1)
    return energies


def knowledge_losses(eigenvectors: Values, teacher: Features, projected_student: Features) -> Values:
    """Compute ‖u_kᵀ(X_t − P(X_s))‖² for every frequency k; they sum to ‖X_t − P(X_s)‖² (Theorem 1).

    Args:
        eigenvectors: u_k in column k, shape (N, N).
        teacher: X_t, shape (N, d_t).
        projected_student: P(X_s), shape (N, d_t).

    Returns:
        Shape (N,).
    """
    return knowledge_energies(eigenvectors, teacher.astype(np.float64) - projected_student.astype(np.float64))


def equal_width_edges(num_groups: int) -> Values:
    """Return the boundaries of equally wide groups of frequencies on [0, 2], shape (num_groups + 1,)."""
    return np.linspace(0.0, MAX_FREQUENCY, num_groups + 1)


class ExactGroups:
    """Knowledge groups cut out of an eigenbasis: each frequency belongs to one group.

    Eigenvectors that share a frequency are a basis of their eigenspace as good as any other, so their energies mean
    something only together: where a boundary cuts through an eigenspace, its energy is spread evenly over it.

    Attributes:
        bounds: Lowest and highest frequency of each group, shape (G, 2).
        counts: Number of frequencies in each group, shape (G,).
        leakage: Share of one frequency's energy that may show in a foreign group: rounding alone.
    """

    leakage = 1e-12

    def __init__(self, spectrum: Spectrum, starts: npt.NDArray[np.intp], bounds: Values) -> None:
        """Cut the ascending frequencies into runs.

        Args:
            spectrum: The eigenbasis of L.
            starts: First frequency of each group, ascending, shape (G,); the first is 0.
            bounds: What to report as each group's range, shape (G, 2).
        """
        self._spectrum = spectrum
        self._group = np.searchsorted(starts, np.arange(len(spectrum.frequencies)), side="right") - 1
        steps = np.diff(spectrum.frequencies, prepend=spectrum.frequencies[0])
        self._eigenspace = np.cumsum(steps > SAME_FREQUENCY)
        self.bounds = bounds
        self.counts: Values = np.bincount(self._group, minlength=len(bounds)).astype(np.float64)

    def energies(self, features: Features) -> Values:
        """Compute the energy of X, shape (N, d), in each group, shape (G,); the groups sum to ‖X‖²."""
        energies = knowledge_energies(self._spectrum.eigenvectors, features)
        means = np.bincount(self._eigenspace, energies) / np.bincount(self._eigenspace)
        groups: Values = np.bincount(self._group, means[self._eigenspace], len(self.bounds)).astype(np.float64)
        return groups


def equal_width_groups(spectrum: Spectrum, num_groups: int) -> ExactGroups:
    """Group frequencies into intervals of equal width; a frequency on a boundary belongs to the upper one."""
    edges = equal_width_edges(num_groups)
    starts = np.searchsorted(spectrum.frequencies, edges[:-1] - SAME_FREQUENCY)
    starts[0] = 0
    return ExactGroups(spectrum, starts, np.column_stack([edges[:-1], edges[1:]]))


def equal_count_groups(spectrum: Spectrum, num_groups: int) -> ExactGroups:
    """Group frequencies into runs of equal number, give or take one.

    Raises:
        SettingError: More groups than frequencies.
    """
    size = len(spectrum.frequencies)
    if num_groups > size:
        raise SettingError(f"groups: {num_groups:,} groups of {size:,} frequencies; take at most one per frequency")
    starts = np.linspace(0, size, num_groups + 1).astype(np.intp)
    frequencies = np.clip(spectrum.frequencies, 0.0, MAX_FREQUENCY)
    bounds = np.column_stack([frequencies[starts[:-1]], frequencies[starts[1:] - 1]])
    return ExactGroups(spectrum, starts[:-1], bounds)
