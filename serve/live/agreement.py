"""How far two top-k lists agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of the longer list that the other one holds too, whatever the ranks; 1 where both are empty."""
    longer = max(len(first), len(second))
    return len(set(first) & set(second)) / longer if longer else 1.0


def rank_correlation(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Spearman's rank correlation of the items that both lists hold (Spearman, 1904); None for fewer than two.

    Args:
        first: Distinct ids, best first.
        second: Likewise.
    """
    places = {item_id: place for place, item_id in enumerate(second)}
    common = np.array([places[item_id] for item_id in first if item_id in places])
    size = len(common)
    if size < 2:
        return None
    ranks = np.argsort(np.argsort(common))
    return float(1 - 6 * np.square(ranks - np.arange(size)).sum() / (size * (size * size - 1)))
