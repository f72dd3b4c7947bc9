"""From ranked lists to metrics, user by user: `measure_ranking` is the one way, whatever made the lists.

Every function of `METRICS` takes

- `hits`: bool, shape (B, K): is the item at this rank relevant; beyond K nothing is;
- `num_relevant`: int, shape (B,): how many relevant items the user has in all;
- `k`: the cutoff, at least 1;

and returns float64 of shape (B,), 0 for users without relevant items.

References:
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002 (DCG, NDCG).
    Voorhees, "The TREC-8 question answering track report", 1999 (MRR).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Rows = npt.NDArray[np.int64]
Lists = Sequence[npt.NDArray[np.integer[Any]]] | npt.NDArray[np.integer[Any]]
Hits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.float64]
Metric = Callable[[Hits, Counts, int], Values]


def measure_ranking(ranked: Rows, relevant: sp.csr_matrix, users: Rows, cutoffs: Sequence[int]) -> dict[str, Values]:
    """Measure the ranked list of each user by every metric at every cutoff.

    Args:
        ranked: Item rows, best first, shape (B, K).
        relevant: CSR of shape (|U|, |I|).
        users: Row numbers of the B users.
        cutoffs: The k of the metrics.

    Returns:
        "<name>@<k>" → each user's value, shape (B,); whoever averages chooses the users.
    """
    hits, num_relevant = find_hits(ranked, relevant, users), np.diff(relevant.indptr)[users]
    return {f"{name}@{k}": metric(hits, num_relevant, k) for k in cutoffs for name, metric in METRICS.items()}


def find_hits(ranked: Rows, relevant: sp.csr_matrix, users: Rows) -> Hits:
    """Mark which recommended items are relevant.

    Args:
        ranked: Item rows, shape (B, K).
        relevant: CSR of shape (|U|, |I|).
        users: Row numbers of the B users.

    Returns:
        Shape (B, K).
    """
    relevant = relevant if relevant.has_sorted_indices else relevant.sorted_indices()
    num_items = relevant.shape[1]
    owners = np.repeat(np.arange(relevant.shape[0], dtype=np.int64), np.diff(relevant.indptr))
    keys = owners * num_items + relevant.indices
    wanted = users[:, None] * num_items + ranked
    if not len(keys):
        return np.zeros(ranked.shape, dtype=np.bool_)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    hits: Hits = keys[places] == wanted
    return hits


def recall_at_k(hits: Hits, num_relevant: Counts, k: int) -> Values:
    """Share of the relevant items found among the first k; the denominator is all of them, not min(·, k)."""
    shares: Values = hits[:, :k].sum(axis=1) / np.maximum(num_relevant, 1)
    return shares


def ndcg_at_k(hits: Hits, num_relevant: Counts, k: int) -> Values:
    """Discounted gain of the first k over the best possible, min(num_relevant, k) hits at the top."""
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gain = hits[:, :k] @ discounts[: hits.shape[1]]
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(num_relevant, k)]
    shares: Values = np.divide(gain, ideal, out=np.zeros_like(gain), where=ideal > 0)
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


METRICS: dict[str, Metric] = {
    "Recall": recall_at_k,
    "NDCG": ndcg_at_k,
    "Precision": precision_at_k,
    "HitRate": hit_rate_at_k,
    "MRR": reciprocal_rank_at_k,
}
"""Name in reports → function; a report's key is "<name>@<k>"."""


def overlap(lists: Lists, others: Lists) -> Values:
    """Measure what share of each list the other one holds too, whatever the ranks.

    With the exact lists first and those of an approximate index second, this is the recall of the index.

    Args:
        lists: B lists of items, each item once in a list; they may differ in length.
        others: Likewise.

    Returns:
        Shape (B,); an empty list is held whole.
    """
    lengths, other_lengths = (np.array([len(one) for one in side], dtype=np.int64) for side in (lists, others))
    owners, other_owners = (np.repeat(np.arange(len(lengths)), count) for count in (lengths, other_lengths))
    items, found = (np.concatenate([np.empty(0, dtype=np.int64), *side]) for side in (lists, others))
    first = min(items.min(initial=0), found.min(initial=0))
    width = max(items.max(initial=0), found.max(initial=0)) - first + 1
    held = np.isin(owners * width + (items - first), other_owners * width + (found - first))
    counts = np.bincount(owners, held, minlength=len(lengths))
    shares: Values = np.divide(counts, lengths, out=np.ones(len(lengths)), where=lengths > 0)
    return shares
