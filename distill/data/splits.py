"""Dividing each user's interactions into train, validation and test.

`ordered`, `random` and `temporal` cut a user's n rows, in file order, shuffled or by time, at
floor(n · 8/10), but at least 1, and at floor(n · 9/10): the rounding of the public FreqD code, here in exact
integers.
`leave-one-out` gives a user's last row to test and the one before it to validation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distill.errors import SettingError

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_METHODS = ("ordered", "random", "temporal", "leave-one-out")
DEFAULT_RATIOS = (8, 1, 1)


def assign_splits(
    user_index: npt.NDArray[np.int64],
    method: str,
    *,
    timestamps: npt.NDArray[Any] | None = None,
    ratios: tuple[int, int, int] = DEFAULT_RATIOS,
    rng: np.random.Generator | None = None,
) -> npt.NDArray[np.int8]:
    """Give every row a split; every user keeps at least one row in train.

    Args:
        user_index: Row numbers, shape (n,), in file order.
        method: One of `SPLIT_METHODS`.
        timestamps: Shape (n,); needed by `temporal`, used by `leave-one-out` where given. Equal times keep
            file order.
        ratios: Whole parts of train, validation and test; not used by `leave-one-out`.
        rng: Needed by `random`.

    Returns:
        int8 of `TRAIN`, `VALIDATION`, `TEST`, shape (n,).

    Raises:
        SettingError: The method is unknown, or lacks what it needs.
    """
    if method not in SPLIT_METHODS:
        raise SettingError(f"--split: unknown method '{method}'; give one of {', '.join(SPLIT_METHODS)}")
    if method == "temporal" and timestamps is None:
        raise SettingError("--split temporal: the data has no timestamps; give --split random or ordered")
    if method == "random" and rng is None:
        raise SettingError("--split random: needs a seeded generator; give --seed")
    if method == "leave-one-out":
        return _leave_one_out(*_positions(user_index, timestamps))
    key = {"ordered": None, "temporal": timestamps}.get(method)
    if method == "random" and rng is not None:
        key = rng.permutation(len(user_index))
    return _by_ratios(*_positions(user_index, key), ratios)


def carve_validation(
    user_index: npt.NDArray[np.int64],
    splits: npt.NDArray[np.int8],
    rng: np.random.Generator,
) -> npt.NDArray[np.int8]:
    """Move a random ninth (rounded down) of each user's train rows to validation.

    LightGCN's own files have train and test only; a ninth of nine tenths makes them 8:1:1.

    Args:
        user_index: Row numbers, shape (n,).
        splits: A split without validation, shape (n,).
        rng: Draws the rows.

    Returns:
        The new split, shape (n,).
    """
    carved = splits.copy()
    train = np.flatnonzero(splits == TRAIN)
    position, count = _positions(user_index[train], rng.permutation(len(train)))
    carved[train[position < count // 9]] = VALIDATION
    return carved


def _positions(
    user_index: npt.NDArray[np.int64], key: npt.NDArray[Any] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each row's place among its user's rows by `key` (None: file order), and the user's row count."""
    order = np.argsort(user_index, kind="stable") if key is None else np.lexsort((key, user_index))
    counts = np.bincount(user_index)
    starts = np.cumsum(counts) - counts
    position = np.empty(len(user_index), dtype=np.int64)
    position[order] = np.arange(len(user_index)) - starts[user_index[order]]
    return position, counts[user_index]


def _by_ratios(
    position: npt.NDArray[np.int64], count: npt.NDArray[np.int64], ratios: tuple[int, int, int]
) -> npt.NDArray[np.int8]:
    train, validation, test = ratios
    whole = train + validation + test
    if min(ratios) < 0 or train < 1:
        raise SettingError(f"--ratios {train}:{validation}:{test}: give whole parts, train at least 1")
    train_end = np.maximum(count * train // whole, 1)
    validation_end = np.maximum(count * (train + validation) // whole, train_end)
    return ((position >= train_end).astype(np.int8) + (position >= validation_end)).astype(np.int8)


def _leave_one_out(position: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """Users of fewer than three rows stay in train as a whole: they cannot give two away."""
    from_end = np.where(count >= 3, count - 1 - position, 2)
    return np.choose(np.minimum(from_end, 2), [TEST, VALIDATION, TRAIN]).astype(np.int8)
