"""Graphs over users and items: SciPy in, SciPy out, never dense.

All graphs span one vertex set of N = |U| + |I| entities, users first, so that one filter serves both variants
of FreqD.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

BLOCK_ROWS = 512


def bipartite_adjacency(user_items: sp.csr_matrix) -> sp.csr_matrix:
    """User–item graph A = [[0, R], [Rᵀ, 0]] (the paper-time variant of FreqD; He et al., LightGCN, eq. 7).

    Args:
        user_items: R, CSR of shape (|U|, |I|).

    Returns:
        CSR of shape (N, N).
    """
    return sp.block_array([[None, user_items], [user_items.T, None]], format="csr", dtype=np.float32)


def cooccurrence_adjacency(user_items: sp.csr_matrix, num_neighbors: int, *, reference: bool = False) -> sp.csr_matrix:
    """User–user and item–item graphs of the strongest co-occurrences, as one block-diagonal graph.

    Args:
        user_items: R, CSR of shape (|U|, |I|).
        num_neighbors: Neighbours kept for each entity, by number of shared interactions.
        reference: Reproduce the public code: see `top_cooccurrence`.

    Returns:
        CSR of shape (N, N).
    """
    users = top_cooccurrence(user_items, num_neighbors, reference=reference)
    items = top_cooccurrence(user_items.T.tocsr(), num_neighbors, reference=reference)
    return sp.block_diag([users, items], format="csr", dtype=np.float32)


def top_cooccurrence(incidence: sp.csr_matrix, num_neighbors: int, *, reference: bool = False) -> sp.csr_matrix:
    """Link each row to the rows it shares most columns with; edges weigh 1, then A = (G + Gᵀ) / 2.

    A row never links to itself, only rows that share at least one column are neighbours, and ties go to the
    lower row number. With `reference` the three traps of the public code are kept instead: the strongest
    entry is dropped as "self" even where a tie put another row first (so a self loop can stay), and a row with
    too few neighbours is padded with rows it shares nothing with.

    Args:
        incidence: CSR of shape (N, M).
        num_neighbors: Neighbours kept a row, before symmetrisation.
        reference: Keep the public code's traps.

    Returns:
        CSR of shape (N, N), symmetric, float32.
    """
    transposed = incidence.T.tocsr()
    size = incidence.shape[0]
    keep = num_neighbors + 1 if reference else num_neighbors
    sources, targets = [], []
    for start in range(0, size, BLOCK_ROWS):
        counts = (incidence[start : start + BLOCK_ROWS] @ transposed).tocoo()
        row, column, count = counts.row + start, counts.col, counts.data
        if not reference:
            other = row != column
            row, column, count = row[other], column[other], count[other]
        order = np.lexsort((column, -count, row))
        row, column = row[order], column[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        kept = rank < keep
        sources.append(row[kept])
        targets.append(column[kept])
    source, target = np.concatenate(sources), np.concatenate(targets)
    if reference:
        source, target = _pad_and_drop_strongest(source, target, size, keep)
    graph = sp.csr_matrix((np.ones(len(source), dtype=np.float32), (source, target)), shape=(size, size))
    return ((graph + graph.T) * np.float32(0.5)).tocsr()


def _pad_and_drop_strongest(
    source: np.ndarray, target: np.ndarray, size: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fill every row up to `width` with the lowest-numbered rows it shares nothing with; drop its first entry."""
    bounds = np.searchsorted(source, np.arange(size + 1))
    sources, targets = [], []
    for row in range(size):
        linked = target[bounds[row] : bounds[row + 1]]
        strangers = np.setdiff1d(np.arange(min(size, width)), linked)
        chosen = np.concatenate([linked, strangers])[1:width]
        sources.append(np.full(len(chosen), row))
        targets.append(chosen)
    return np.concatenate(sources), np.concatenate(targets)


def symmetric_normalization(adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """Â = D^-1/2 A D^-1/2 (Kipf and Welling, ICLR 2017); a vertex without edges keeps an empty row.

    Args:
        adjacency: A, CSR of shape (N, N), non-negative.

    Returns:
        CSR of shape (N, N), float32.
    """
    degree = np.asarray(adjacency.sum(axis=1), dtype=np.float64).ravel()
    scale = np.zeros_like(degree)
    np.power(degree, -0.5, out=scale, where=degree > 0)
    return sp.csr_matrix(sp.diags_array(scale) @ adjacency @ sp.diags_array(scale), dtype=np.float32)


def laplacian(normalized_adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """L = I − Â, whose eigenvalues, the frequencies, lie in [0, 2]."""
    size = normalized_adjacency.shape[0]
    return sp.csr_matrix(sp.eye_array(size, dtype=np.float32) - normalized_adjacency, dtype=np.float32)
