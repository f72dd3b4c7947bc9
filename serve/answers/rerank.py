"""Another order for the best candidates: less of the same, less of what is popular anyway.

Both work on a pool of the best `RERANKED` eligible items, whatever k is, so that pages of one list never overlap.

References:
    Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries", SIGIR 1998.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from serve.answers.types import Rows, Scores

RERANKED = 500
Relevance = npt.NDArray[np.float32]


def relevance_of(scores: Scores, popularity: Relevance, discount: float) -> Relevance:
    """Scores scaled to [0, 1] over the pool, less a share of each item's popularity.

    Args:
        scores: Of the pool, shape (n,).
        popularity: Of its items, 1 for the most popular of the catalogue and 0 for the least, shape (n,).
        discount: γ ≥ 0; with 1, the best score weighs as much as the highest popularity.

    Returns:
        float32 of shape (n,).
    """
    spread = float(scores.max() - scores.min()) if len(scores) else 0.0
    scaled = (scores - scores.min()) / spread if spread > 0 else np.zeros_like(scores)
    relevance: Relevance = (scaled - discount * popularity).astype(np.float32)
    return relevance


def diversify(
    relevance: Relevance, similarities: Callable[[int], Relevance], diversity: float, wanted: int
) -> npt.NDArray[np.int64]:
    """An order by maximal marginal relevance: next is argmax (1 − λ) rel(i) − λ max over those chosen of sim(i, j).

    Args:
        relevance: Of the pool, shape (n,).
        similarities: Place → its similarity to each of the pool, shape (n,).
        diversity: λ in [0, 1]; 0 sorts by relevance.
        wanted: How many places to choose; the others follow by relevance.

    Returns:
        A permutation of the places, int64 of shape (n,); equal values by rising place.
    """
    by_relevance = np.argsort(-relevance, kind="stable")
    if diversity == 0 or len(relevance) < 2:
        return by_relevance
    nearest = np.zeros_like(relevance)
    left = np.ones(len(relevance), dtype=bool)
    chosen: list[int] = []
    for _ in range(min(wanted, len(relevance))):
        gain = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        place = int(np.argmax(gain))
        nearest = np.maximum(nearest, similarities(place)) if chosen else similarities(place).copy()
        left[place] = False
        chosen.append(place)
    return np.concatenate([np.array(chosen, dtype=np.int64), by_relevance[left[by_relevance]]])


def reorder(rows: Rows, scores: Scores, order: npt.NDArray[np.int64]) -> tuple[Rows, Scores]:
    """The first len(order) places in another order, the rest as they are."""
    rest = np.arange(len(order), len(rows))
    places = np.concatenate([order, rest])
    return rows[places], scores[places]
