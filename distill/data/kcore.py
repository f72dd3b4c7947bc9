"""Thinning pairs: first of duplicates, and the k-core."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def first_pairs(
    user_index: npt.NDArray[np.int64],
    item_index: npt.NDArray[np.int64],
    timestamps: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.int64]:
    """Select one row of every (user, item) pair: the first, or the earliest where times are given.

    Args:
        user_index: Row numbers, shape (n,).
        item_index: Row numbers, shape (n,).
        timestamps: Shape (n,); among equal times the first row counts.

    Returns:
        Rising row positions, shape (number of distinct pairs,).
    """
    pair = user_index * (int(item_index.max(initial=0)) + 1) + item_index
    if timestamps is None:
        return np.sort(np.unique(pair, return_index=True)[1])
    by_time = np.argsort(timestamps, kind="stable")
    return np.sort(by_time[np.unique(pair[by_time], return_index=True)[1]])


def kcore_mask(
    user_index: npt.NDArray[np.int64],
    item_index: npt.NDArray[np.int64],
    user_minimum: int,
    item_minimum: int,
) -> npt.NDArray[np.bool_]:
    """Select the largest set of rows in which every user and every item has its minimum.

    Users and items below their minimum are dropped together, again and again, until none is left; the set
    does not depend on the order of dropping.

    Args:
        user_index: Row numbers, shape (n,).
        item_index: Row numbers, shape (n,).
        user_minimum: Rows a user must keep; 0 or 1 keeps all users.
        item_minimum: The same for items.

    Returns:
        True for the rows to keep, shape (n,).
    """
    kept = np.arange(len(user_index))
    while True:
        users, items = user_index[kept], item_index[kept]
        keep = (np.bincount(users)[users] >= user_minimum) & (np.bincount(items)[items] >= item_minimum)
        if keep.all():
            break
        kept = kept[keep]
    mask = np.zeros(len(user_index), dtype=bool)
    mask[kept] = True
    return mask
