"""Rows in the order of their users, by counting: time goes by the rows, where a sort's goes by rows × log(rows)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Rows = npt.NDArray[np.integer[Any]]
"""Row positions, in 4 bytes each where they fit."""


def group_rows(index: npt.NDArray[Any], before: npt.NDArray[Any] | None = None) -> Rows:
    """Return the order that puts rows of equal numbers side by side, lower numbers first.

    It is what `np.argsort(index, kind="stable")` returns: a matrix with a one for each row, in its number's row, has
    its columns in that order.

    Args:
        index: Numbers of 0 and more, not much larger than there are rows, shape (n,).
        before: An order that rows of equal number keep; None: as they stand.

    Returns:
        Row positions, shape (n,).
    """
    count = len(index)
    if count == 0:
        return np.empty(0, dtype=np.int32)
    kind = _smallest(count)
    numbers = (index if before is None else index[before]).astype(kind, copy=False)
    ones, columns = np.ones(count, dtype=np.bool_), np.arange(count, dtype=kind)
    order: Rows = sp.coo_matrix((ones, (numbers, columns)), shape=(int(numbers.max()) + 1, count)).tocsr().indices
    return order if before is None else before[order]


def order_by_time(times: npt.NDArray[Any]) -> Rows | None:
    """Return the order of rising times, of equal ones as they stand; None where rows are in it, as those of a log.

    Args:
        times: Shape (n,).
    """
    if bool((times[1:] >= times[:-1]).all()):
        return None
    return np.argsort(times, kind="stable").astype(_smallest(len(times)))


def find_first_rows(index: npt.NDArray[Any]) -> tuple[Rows, Rows]:
    """Return the numbers that occur, rising, and the first row of each.

    Args:
        index: Numbers of 0 and more, not much larger than there are rows, shape (n,).
    """
    first = np.full(int(index.max(initial=-1)) + 1, len(index))
    # Of several values for a place the last is kept, so the rows come backwards.
    first[index[::-1]] = np.arange(len(index) - 1, -1, -1)
    occurring = np.flatnonzero(first < len(index))
    return occurring, first[occurring]


def _smallest(count: int) -> type[np.int32 | np.int64]:
    return np.int32 if count <= np.iinfo(np.int32).max else np.int64
