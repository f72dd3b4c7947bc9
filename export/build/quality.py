"""Quality of a bundle's own arrays: full ranking of held-out items with the seen ones masked.

The same measure for students, teachers and rivals, from arrays that every bundle has, so that the numbers
compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.evaluation.metrics import measure_ranking
from distill.evaluation.ranking import rank_items
from export.bundle.reader import Bundle

CUTOFF = 20


def convention(seen: str) -> str:
    """The convention in words; `seen` names the splits that are masked."""
    return f"full ranking, test items relevant, {seen} items masked, mean over users with relevant items"


def measure_quality(
    user_embeddings: npt.NDArray[Any],
    item_embeddings: npt.NDArray[Any],
    seen: sp.csr_matrix,
    relevant: sp.csr_matrix,
) -> dict[str, float]:
    """Recall@20 and NDCG@20, averaged over users with relevant items.

    Args:
        user_embeddings: Shape (U, d).
        item_embeddings: Shape (I, d).
        seen: CSR of shape (U, I); these items are masked, unless they are relevant.
        relevant: CSR of shape (U, I).

    Returns:
        {"recall@20", "ndcg@20"}; empty where nothing is relevant.
    """
    users = np.flatnonzero(np.diff(relevant.indptr)).astype(np.int64)
    if len(users) == 0:
        return {}
    masked = (seen - seen.multiply(relevant)).tocsr()
    masked.eliminate_zeros()
    length = min(CUTOFF, item_embeddings.shape[0])
    ranked = rank_items(_tensor(user_embeddings), _tensor(item_embeddings), masked, users, length, progress=True)
    per_user = measure_ranking(ranked, relevant, users, [CUTOFF])
    return {f"{name.lower()}@{CUTOFF}": float(per_user[f"{name}@{CUTOFF}"].mean()) for name in ("Recall", "NDCG")}


def _tensor(values: npt.NDArray[Any]) -> torch.Tensor:
    # A copy, because a mapped array is read-only and torch tensors are not.
    return torch.from_numpy(np.array(values, dtype=np.float32))


def as_csr(indptr: npt.NDArray[Any], indices: npt.NDArray[Any], num_items: int) -> sp.csr_matrix:
    """A CSR of ones, float32 of shape (U, I), from the arrays of a bundle."""
    shape = (len(indptr) - 1, num_items)
    return sp.csr_matrix((np.ones(len(indices), dtype=np.float32), np.array(indices), np.array(indptr)), shape=shape)


def measure_bundle(bundle: Bundle) -> dict[str, float]:
    """What `measure_quality` finds from a bundle alone; empty where it has no held-out items."""
    if bundle.heldout_indptr is None or bundle.heldout_indices is None:
        return {}
    num_items = len(bundle.item_ids)
    seen = as_csr(bundle.seen_indptr, bundle.seen_indices, num_items)
    relevant = as_csr(bundle.heldout_indptr, bundle.heldout_indices, num_items)
    return measure_quality(bundle.user_embeddings, bundle.item_embeddings, seen, relevant)
