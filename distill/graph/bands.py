"""Frequency bands of large graphs, by polynomials of L alone: sparse products, no eigenvector, nothing dense N × N.

A band b has a window g_b ≥ 0 over the frequencies, and the windows sum to one everywhere. Its energy is
⟨X, g_b(L) X⟩ = Σ_k g_b(λ_k) ‖u_kᵀX‖², so the bands add up to ‖X‖² exactly, however soft the windows are. The other
way, ‖h_b(L) X‖² with Σ_b h_b² = 1, needs h_b = √g_b: no polynomial, so the sum would only nearly hold, and every band
would need its own pass over X.

Here g_b is the Chebyshev series of the band's indicator (Di Napoli, Polizzi and Saad, "Efficient estimation of
eigenvalue counts in an interval", 2016) damped by Jackson's kernel (Weiße et al., "The kernel polynomial method", Rev.
Mod. Phys. 78, 2006). The kernel is positive and keeps constants, hence g_b ≥ 0 and Σ_b g_b = 1. It is no approximation
of a window, it is the window: on an eigenbasis, g_b(λ_k) gives the same energy to rounding. All bands are linear in the
moments ⟨X, T_n X⟩, so one recursion serves every band.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from numpy.polynomial import chebyshev
from tqdm import tqdm

from distill.graph.propagation import SparseMatrix
from distill.graph.spectrum import MAX_FREQUENCY, Features, Values, equal_width_edges

MOMENTS_PER_BAND = 16
"""Blurs a boundary by a tenth of the band's width at frequency 1, and by less towards 0 and 2."""
BLOCK_COLUMNS = 16
"""Columns that go through the recursion together: five arrays of 8 · 16 · N bytes (19 MB for 30,000 entities)."""
PROBES = 32
"""Random columns behind the estimated number of frequencies: n of them in a band come out within about √(n / 16)."""
MARGIN = 1e-6
"""The interval is this much wider than [0, 2]: Â is float32, and T_n explodes outside [−1, 1]."""
GRID_PER_BAND = 32
MOST_IN_FLOAT64 = 100_000
"""Entities up to which the recursion is in float64. In float32 it takes a fifth of the time; what it rounds away, some
n · 6e-8 of the energy, is far below `leakage`."""


class ChebyshevBands:
    """Knowledge groups of equal width on a graph of any size.

    Attributes:
        bounds: Lowest and highest frequency of each band, shape (B, 2).
        counts: Number of frequencies in each band, estimated (see `PROBES`), shape (B,); they sum to N.
        leakage: Largest share of one frequency's energy that shows in a band that is not its own or next to it.
    """

    def __init__(
        self, normalized_adjacency: sp.csr_matrix, num_bands: int, rng: np.random.Generator, *, progress: bool = False
    ) -> None:
        """Build the windows and estimate how many frequencies each holds.

        Args:
            normalized_adjacency: Â, symmetric CSR of shape (N, N).
            num_bands: B.
            rng: Draws the random columns of the estimate.
            progress: Show a bar for each set of features, where somebody looks.
        """
        self._progress = progress
        self._adjacency = normalized_adjacency
        edges = equal_width_edges(num_bands)
        self._coefficients = window_coefficients(edges, MOMENTS_PER_BAND * num_bands)
        self.bounds = np.column_stack([edges[:-1], edges[1:]])
        self.leakage = self._measure_leakage()
        # The trace of g(L) is the mean of zᵀ g(L) z over random signs z (Hutchinson's estimate).
        signs = rng.choice([-1.0, 1.0], size=(normalized_adjacency.shape[0], PROBES))
        self.counts: Values = self.energies(signs) / PROBES

    def energies(self, features: Features) -> Values:
        """Compute ⟨X, g_b(L) X⟩, the energy of X, shape (N, d), in each band, shape (B,); the bands sum to ‖X‖²."""
        energies: Values = self._coefficients @ chebyshev_moments(
            self._adjacency, features, self._coefficients.shape[1], progress=self._progress
        )
        return energies

    def _measure_leakage(self) -> float:
        num_bands = len(self.bounds)
        grid = np.linspace(0.0, MAX_FREQUENCY, GRID_PER_BAND * num_bands, endpoint=False)
        responses = window_responses(self._coefficients, grid)
        distance = np.abs(np.arange(num_bands)[:, None] - np.arange(len(grid)) // GRID_PER_BAND)
        return float(np.max(responses, where=distance > 1, initial=0.0))


def window_coefficients(edges: Values, num_moments: int) -> Values:
    """Compute the Chebyshev coefficients of the windows over consecutive bands.

    Args:
        edges: Boundaries, ascending from 0 to 2, shape (B + 1,).
        num_moments: Degree of the windows plus one.

    Returns:
        Row b holds g_b, shape (B, num_moments).
    """
    angles = np.arccos(_to_unit(edges))
    angles[0], angles[-1] = np.pi, 0.0
    orders = np.arange(1, num_moments)
    below = np.column_stack([angles / np.pi, 2 / np.pi * np.sin(np.outer(angles, orders)) / orders])
    windows: Values = (below[:-1] - below[1:]) * _jackson_kernel(num_moments)
    return windows


def window_responses(coefficients: Values, frequencies: Values) -> Values:
    """Evaluate g_b(λ) of every window at the given frequencies.

    Args:
        coefficients: What `window_coefficients` returned, shape (B, num_moments).
        frequencies: λ, shape (n,).

    Returns:
        Shape (B, n); each column sums to 1.
    """
    return np.asarray(chebyshev.chebval(_to_unit(frequencies), coefficients.T), dtype=np.float64)


def chebyshev_moments(
    normalized_adjacency: sp.csr_matrix, features: Features, num_moments: int, *, progress: bool = False
) -> Values:
    """Compute ⟨X, T_n X⟩ for n < num_moments, T_n the Chebyshev polynomials of L − I = −Â.

    T_{m+n} + T_{m−n} = 2 T_m T_n gives two moments a product: ⟨X, T_{2n} X⟩ = 2 ‖T_n X‖² − ‖X‖², and likewise for
    2n + 1 (Weiße et al.). Time: num_moments / 2 sparse products of width d.

    Args:
        normalized_adjacency: Â, symmetric CSR of shape (N, N).
        features: X, shape (N, d).
        num_moments: An even number.
        progress: Show a bar where somebody looks.

    Returns:
        Shape (num_moments,).
    """
    multiply, dtype = _operator(normalized_adjacency)
    moments = np.zeros(num_moments)
    starts = range(0, features.shape[1], BLOCK_COLUMNS)
    for start in tqdm(starts, desc="frequencies", unit="block", disable=None if progress else True, leave=False):
        block = np.ascontiguousarray(features[:, start : start + BLOCK_COLUMNS], dtype=dtype)
        previous, current = block, multiply(block)
        whole, first = _inner(block, block), _inner(block, current)
        moments[0] += whole
        moments[1] += first
        for order in range(2, num_moments, 2):
            following = multiply(current)
            following *= 2
            following -= previous
            moments[order] += 2 * _inner(current, current) - whole
            moments[order + 1] += 2 * _inner(following, current) - first
            previous, current = current, following
    return moments


def _operator(normalized_adjacency: sp.csr_matrix) -> tuple[Callable[[Features], Features], type[np.floating]]:
    """−Â, a little shrunk, as a product with features of the type that is returned too."""
    scaled = sp.csr_matrix(normalized_adjacency, dtype=np.float64) * (-1 / (1 + MARGIN))
    if scaled.shape[0] <= MOST_IN_FLOAT64:
        return lambda features: scaled @ features, np.float64
    matrix = SparseMatrix(scaled)
    return lambda features: matrix.multiply(torch.from_numpy(features)).numpy(), np.float32


def _jackson_kernel(num_moments: int) -> Values:
    orders, step = np.arange(num_moments), np.pi / (num_moments + 1)
    cosines = (num_moments - orders + 1) * np.cos(step * orders)
    kernel: Values = (cosines + np.sin(step * orders) / np.tan(step)) / (num_moments + 1)
    return kernel


def _to_unit(frequencies: Values) -> Values:
    """Map [0 − MARGIN, 2 + MARGIN] onto [−1, 1], where Chebyshev polynomials live."""
    return (frequencies - MAX_FREQUENCY / 2) / (1 + MARGIN)


def _inner(left: Features, right: Features) -> float:
    """⟨X, Y⟩ on one thread: BLAS spreads such short sums over threads, and waits for them longer than it sums."""
    if left.dtype == np.float64:
        return float(np.einsum("ij,ij->", left, right))
    return float(np.einsum("ij,ij->i", left, right).sum(dtype=np.float64))
