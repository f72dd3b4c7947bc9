"""Ranking metrics on arrays: hits in ranked order in, one number per user out.

Every function takes

- `hits`: bool, shape (B, K): is the item at this rank relevant;
- `num_relevant`: int, shape (B,): how many relevant items the user has in all;
- `k`: the cutoff, 1 ≤ k ≤ K;

and returns float64 of shape (B,), 0 for users without relevant items.

References:
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002 (DCG, NDCG).
    Voorhees, "The TREC-8 question answering track report", 1999 (MRR).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Hits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.float64]
Metric = Callable[[Hits, Counts, int], Values]


def recall_at_k(hits: Hits, num_relevant: Counts, k: int) -> Values:
    """Share of the relevant items found among the first k; the denominator is all of them, not min(·, k)."""
    shares: Values = hits[:, :k].sum(axis=1) / np.maximum(num_relevant, 1)
    return shares


def precision_at_k(hits: Hits, num_relevant: Counts, k: int) -> Values:
    """Share of the first k that is relevant."""
    return np.where(num_relevant > 0, hits[:, :k].sum(axis=1) / k, 0.0)


def hit_rate_at_k(hits: Hits, num_relevant: Counts, k: int) -> Values:
    """1 where at least one of the first k is relevant."""
    return (hits[:, :k].any(axis=1) & (num_relevant > 0)).astype(np.float64)


def reciprocal_rank_at_k(hits: Hits, num_relevant: Counts, k: int) -> Values:
    """1 / rank of the first relevant item within the first k, else 0; its mean over users is MRR@k."""
    found = hits[:, :k]
    first = found.argmax(axis=1)
    return np.where(found.any(axis=1) & (num_relevant > 0), 1.0 / (first + 1), 0.0)


def ndcg_at_k(hits: Hits, num_relevant: Counts, k: int) -> Values:
    """Discounted gain of the first k over the best possible, min(num_relevant, k) hits at the top."""
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gain = hits[:, :k] @ discounts
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(num_relevant, k)]
    shares: Values = np.divide(gain, ideal, out=np.zeros_like(gain), where=ideal > 0)
    return shares


METRICS: dict[str, Metric] = {
    "Recall": recall_at_k,
    "NDCG": ndcg_at_k,
    "Precision": precision_at_k,
    "HitRate": hit_rate_at_k,
    "MRR": reciprocal_rank_at_k,
}
"""Name in reports → function; a report's key is "<name>@<k>"."""


def overlap(lists: npt.NDArray[np.integer[Any]], others: npt.NDArray[np.integer[Any]]) -> Values:
    """Share of each list that the other one holds too, whatever the ranks.

    Args:
        lists: Items, each once a row, shape (B, K).
        others: Likewise.

    Returns:
        Shape (B,).
    """
    shares: Values = (lists[:, :, None] == others[:, None, :]).any(axis=2).mean(axis=1)
    return shares
