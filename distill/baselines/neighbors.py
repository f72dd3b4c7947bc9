"""What counts need no algebra: the popularity of items, and the neighbours of items.

References:
    Cremonesi, Koren and Turrin, "Performance of recommender algorithms on top-N recommendation tasks", RecSys 2010
        (popularity; cosine similarity of items with shrinkage, unnormalised sums of the nearest).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from distill.baselines.base import Baseline, from_histories
from distill.graph.adjacency import cooccurrence_blocks, row_numbers, top_k_per_row


def popularity(train: sp.csr_matrix) -> Baseline:
    """Score an item by its number of training interactions (CSR of shape (|U|, |I|)), the same for every user."""
    counts = torch.from_numpy(np.bincount(train.indices, minlength=train.shape[1]).astype(np.float32))
    return Baseline(
        lambda users: counts.expand(len(users), -1),
        lambda histories: counts.expand(histories.shape[0], -1),
        counts.nbytes,
    )


def item_knn(train: sp.csr_matrix, num_neighbors: int, shrink: float) -> Baseline:
    """Score an item by its similarity to what the user took: Σ_{j taken} s_ij over the items j nearest to i.

    s_ij = c_ij / (√(n_i n_j) + shrink), with c_ij users in common and n_i users of i: the cosine of two columns,
    shrunk where it rests on few users.

    Args:
        train: CSR of ones, shape (|U|, |I|).
        num_neighbors: Items j kept for each item i.
        shrink: Not negative.
    """
    item_users = train.T.tocsr()
    norms = np.sqrt(np.diff(item_users.indptr)).astype(np.float32)
    blocks = []
    for start, similarity in cooccurrence_blocks(item_users):
        rows = row_numbers(similarity) + start
        similarity.data /= norms[rows] * norms[similarity.indices] + np.float32(shrink)
        similarity.data[similarity.indices == rows] = 0.0
        nearest = top_k_per_row(similarity, num_neighbors)
        nearest.eliminate_zeros()
        blocks.append(nearest)
    weights = sp.vstack(blocks, format="csr").T.tocsr()
    num_bytes = weights.data.nbytes + weights.indices.nbytes + weights.indptr.nbytes
    return from_histories(train, lambda histories: (histories @ weights).toarray(), num_bytes)
