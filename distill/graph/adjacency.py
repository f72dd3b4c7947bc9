"""Graphs over users and items, and their normalisation: SciPy matrices, never dense.

All graphs span one vertex set of N = |U| + |I| entities, users first, so that one filter serves both of FreqD's graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.data.interactions import Interactions

Graph = Literal["bipartite", "cooccurrence"]
BLOCK_PRODUCTS = 2**20


def build_graph(
    data: Interactions, graph: Graph = "bipartite", num_neighbors: int = 5, *, reference: bool = False
) -> sp.csr_matrix:
    """Build the normalised graph Â of the training interactions, as FreqD filters it.

    Args:
        data: The training split is the graph.
        graph: "bipartite" for `bipartite_adjacency`, "cooccurrence" for `cooccurrence_adjacency`.
        num_neighbors: Neighbours kept for each entity of the co-occurrence graph.
        reference: Reproduce the public code: see `top_cooccurrence`.

    Returns:
        CSR of shape (N, N), float32.
    """
    if graph == "bipartite":
        return symmetric_normalization(bipartite_adjacency(data.train))
    return symmetric_normalization(cooccurrence_adjacency(data.train, num_neighbors, reference=reference))


def bipartite_adjacency(user_items: sp.csr_matrix) -> sp.csr_matrix:
    """Build the user–item graph A = [[0, R], [Rᵀ, 0]], CSR of shape (N, N), from R, CSR of shape (|U|, |I|).

    It is the graph of LightGCN (He et al., SIGIR 2020, eq. 7) and of FreqD at paper time.
    """
    return sp.block_array([[None, user_items], [user_items.T, None]], format="csr", dtype=np.float32)


def cooccurrence_adjacency(user_items: sp.csr_matrix, num_neighbors: int, *, reference: bool = False) -> sp.csr_matrix:
    """Build the user–user and item–item graphs of the strongest co-occurrences, as one block-diagonal graph.

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
    size = incidence.shape[0]
    keep = num_neighbors + 1 if reference else num_neighbors
    blocks = []
    for start, counts in cooccurrence_blocks(incidence):
        if not reference:
            # The weakest entry of its row, so it is kept only where nothing else is left, and then dropped.
            counts.data[counts.indices == row_numbers(counts) + start] = 0.0
        blocks.append(top_k_per_row(counts, keep))
    strongest = sp.vstack(blocks, format="csr")
    source, target, count = row_numbers(strongest), strongest.indices, strongest.data
    if reference:
        order = np.lexsort((target, -count, source))
        source, target = _pad_and_drop_strongest(source[order], target[order], size, keep)
    else:
        source, target = source[count > 0], target[count > 0]
    graph = sp.csr_matrix((np.ones(len(source), dtype=np.float32), (source, target)), shape=(size, size))
    return ((graph + graph.T) * np.float32(0.5)).tocsr()


def symmetric_normalization(adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """Compute Â = D^-1/2 A D^-1/2 (Kipf and Welling, ICLR 2017); a vertex without edges keeps an empty row.

    Args:
        adjacency: A, CSR of shape (N, N), non-negative.

    Returns:
        CSR of shape (N, N), float32.
    """
    scale = sp.diags_array(degree_powers(adjacency.sum(axis=1), -0.5))
    return sp.csr_matrix(scale @ adjacency @ scale, dtype=np.float32)


def degree_normalization(user_items: sp.csr_matrix, user_exponent: float, item_exponent: float) -> sp.csr_matrix:
    """Compute D_U^-a R D_I^-b for the exponents a and b; rows and columns without interactions stay empty.

    Args:
        user_items: R, CSR of shape (|U|, |I|), non-negative.
        user_exponent: a.
        item_exponent: b.

    Returns:
        CSR of shape (|U|, |I|), float32.
    """
    users = sp.diags_array(degree_powers(user_items.sum(axis=1), -user_exponent))
    items = sp.diags_array(degree_powers(user_items.sum(axis=0), -item_exponent))
    return sp.csr_matrix(users @ user_items @ items, dtype=np.float32)


def degree_powers(degrees: npt.ArrayLike, exponent: float) -> npt.NDArray[np.float64]:
    """Raise degrees of any shape to a power, 0 where they are 0: float64, one axis."""
    degree = np.asarray(degrees, dtype=np.float64).ravel()
    scale = np.zeros_like(degree)
    np.power(degree, exponent, out=scale, where=degree > 0)
    return scale


def laplacian(normalized_adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """Compute L = I − Â, whose eigenvalues, the frequencies, lie in [0, 2]: CSR of shape (N, N)."""
    size = normalized_adjacency.shape[0]
    return sp.csr_matrix(sp.eye_array(size, dtype=np.float32) - normalized_adjacency, dtype=np.float32)


def cooccurrence_blocks(incidence: sp.csr_matrix) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Count shared columns of each row with all rows, a few rows at a time.

    The products that make a block, and so its nonzeros, stay within `BLOCK_PRODUCTS` (a row that needs more is a
    block of its own): a popular row shares columns with nearly all others, so a number of rows is no bound.

    Args:
        incidence: CSR of ones, shape (N, M).

    Yields:
        The block's first row, and its counts, CSR of shape (block, N), float32, diagonal included.
    """
    transposed = incidence.T.tocsr()
    ends = np.cumsum(incidence @ np.diff(transposed.indptr).astype(np.float64))
    start, done = 0, 0.0
    while start < incidence.shape[0]:
        stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK_PRODUCTS, side="right")))
        yield start, incidence[start:stop] @ transposed
        start, done = stop, float(ends[stop - 1])


def row_numbers(matrix: sp.csr_matrix) -> npt.NDArray[np.int64]:
    """Return the row of each stored entry, int64 of shape (nnz,)."""
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))


def top_k_per_row(matrix: sp.csr_matrix, num_kept: int) -> sp.csr_matrix:
    """Keep the `num_kept` highest stored entries of each row; ties go to the lower column.

    Args:
        matrix: CSR of shape (N, M).
        num_kept: Fewer are kept where a row stores fewer.

    Returns:
        CSR of shape (N, M), columns sorted.
    """
    ordered = matrix.tocsc().tocsr()  # sorts the columns of every row, in linear time
    values, starts, rows = ordered.data, ordered.indptr, row_numbers(ordered)
    threshold = np.full(ordered.shape[0], -np.inf, dtype=values.dtype)
    for row in np.flatnonzero(np.diff(starts) > num_kept):
        threshold[row] = np.partition(values[starts[row] : starts[row + 1]], -num_kept)[-num_kept]
    above, level = values > threshold[rows], values == threshold[rows]
    room = num_kept - np.bincount(rows[above], minlength=len(threshold))
    ties = np.concatenate([[0], np.cumsum(level)])
    kept = above | (level & (ties[1:] - ties[starts[rows]] <= room[rows]))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(threshold)))])
    return sp.csr_matrix((values[kept], ordered.indices[kept], bounds), shape=ordered.shape)


def _pad_and_drop_strongest(
    source: np.ndarray, target: np.ndarray, size: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pad every row up to `width` with the lowest-numbered rows it shares nothing with, and drop its first entry."""
    bounds = np.searchsorted(source, np.arange(size + 1))
    sources, targets = [], []
    for row in range(size):
        linked = target[bounds[row] : bounds[row + 1]]
        strangers = np.setdiff1d(np.arange(min(size, width)), linked)
        chosen = np.concatenate([linked, strangers])[1:width]
        sources.append(np.full(len(chosen), row))
        targets.append(chosen)
    return np.concatenate(sources), np.concatenate(targets)
