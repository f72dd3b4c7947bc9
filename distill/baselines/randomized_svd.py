"""The largest singular values of a large sparse matrix, by a block of random vectors: few passes, each of all of them.

Lanczos multiplies one vector at a time, and needs the more products the closer the values lie: at a million users and
items 64 vectors took more than a quarter of an hour. A block of them is driven towards the same space by a fixed number
of passes. What it finds is short of the exact values where these lie close, and then any vectors of that space will do.

Cost: 2 (`PASSES` + 1) products of 2 nnz (rank + `OVERSAMPLING`) operations, and as many orthogonalisations of 2 n k².

References:
    Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithms 4.4 and 5.1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp
from tqdm import tqdm

PASSES = 10
OVERSAMPLING = 16


def largest_right_vectors(
    matrix: sp.csr_matrix, rank: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Find singular values and right singular vectors.

    Args:
        matrix: CSR of shape (m, n); computed with in float32.
        rank: r, with `OVERSAMPLING` at most m and n.
        rng: Draws the block.

    Returns:
        Values, falling, shape (r,), and vectors, orthonormal, shape (n, r).
    """
    rows = matrix.astype(np.float32)
    columns = rows.T.tocsr()
    width = rank + OVERSAMPLING
    block = rng.standard_normal((matrix.shape[1], width), dtype=np.float32)
    for _ in tqdm(range(PASSES), desc="singular vectors", unit="pass", disable=None, leave=False):
        block = _orthonormal(columns @ (rows @ block))
    image = rows @ block
    squares, turned = np.linalg.eigh(image.T.astype(np.float64) @ image)
    best = np.argsort(-squares)[:rank]
    return np.sqrt(squares[best].clip(min=0)), block @ turned[:, best].astype(np.float32)


def _orthonormal(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    basis: npt.NDArray[np.float32] = scipy.linalg.qr(block, mode="economic", overwrite_a=True, check_finite=False)[0]
    return basis
