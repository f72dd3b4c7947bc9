"""The one measure of quality of export: full ranking of held-out items with the seen ones masked.

Students, teachers, rivals and the candidates of a frontier are measured alike, from arrays that every bundle has, so
that the numbers compare.

References:
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002 (NDCG).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.evaluation.metrics import measure_ranking
from distill.evaluation.ranking import rank_items
from export.bundle import Bundle, BundleContents

CUTOFF = 20
CONVENTION = "full ranking, test items relevant, train+validation items masked, mean over users with relevant items"
"""Of a bundle: what is held out stays answerable, whatever counts as already had."""


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
    # Copies, because a mapped array is read-only and torch tensors are not.
    vectors, columns = (torch.from_numpy(np.array(side, np.float32)) for side in (user_embeddings, item_embeddings))
    ranked = rank_items(vectors, columns, masked, users, length, progress=True)
    per_user = measure_ranking(ranked, relevant, users, [CUTOFF])
    return {f"{name.lower()}@{CUTOFF}": float(per_user[f"{name}@{CUTOFF}"].mean()) for name in ("Recall", "NDCG")}


def as_csr(indptr: npt.NDArray[Any], indices: npt.NDArray[Any], num_items: int) -> sp.csr_matrix:
    """A CSR of ones, float32 of shape (U, I), from the arrays of a bundle."""
    shape = (len(indptr) - 1, num_items)
    return sp.csr_matrix((np.ones(len(indices), dtype=np.float32), np.array(indices), np.array(indptr)), shape=shape)


def measure_bundle(bundle: Bundle | BundleContents) -> dict[str, float]:
    """Measure a bundle, or what is to become one, from its own arrays; empty where it has no held-out items."""
    if bundle.heldout_indptr is None or bundle.heldout_indices is None:
        return {}
    num_items = len(bundle.item_ids)
    seen = as_csr(bundle.seen_indptr, bundle.seen_indices, num_items)
    relevant = as_csr(bundle.heldout_indptr, bundle.heldout_indices, num_items)
    return measure_quality(bundle.user_embeddings, bundle.item_embeddings, seen, relevant)


def compare_with_teacher(quality: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """The teacher's numbers and the share of its recall that is kept, as the manifest names them.

    Args:
        quality: {"recall@20", "ndcg@20"} of the model; may be empty.
        reference: The same of its teacher.
    """
    if not quality.get("recall@20") or not reference.get("recall@20"):
        return {}
    return {
        "teacher_recall@20": float(reference["recall@20"]),
        "teacher_ndcg@20": float(reference["ndcg@20"]),
        "kept_recall": float(quality["recall@20"]) / float(reference["recall@20"]),
    }
