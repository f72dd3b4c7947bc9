"""The table that a reader makes and `prepare` takes: rows as the source has them, before any filter or split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from distill.data.reading import Reading


@dataclass(frozen=True)
class RawTable:
    """Rows of a source in file order, ids encoded as row numbers of their vocabulary.

    Attributes:
        user_ids: Distinct outside ids in order of first appearance, array of str of shape (|U|,).
        item_ids: The same for items, shape (|I|,).
        user_index: int64, shape (n,), row numbers into `user_ids`.
        item_index: int64, shape (n,), row numbers into `item_ids`.
        ratings: float64, shape (n,), or None where the source has none.
        timestamps: int64 or float64, shape (n,), any unit that sorts by time, or None.
        splits: int8, shape (n,), 0 train, 1 validation, 2 test, where the source is split already.
        has_validation: False where a ready split lacks a validation part.
        item_titles: item_id → title, empty where the source has none.
        item_categories: item_id → names, empty where the source has none.
        reading: What the reader understood, where the rows come from a file.
    """

    user_ids: npt.NDArray[np.str_]
    item_ids: npt.NDArray[np.str_]
    user_index: npt.NDArray[np.int64]
    item_index: npt.NDArray[np.int64]
    ratings: npt.NDArray[np.float64] | None = None
    timestamps: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None = None
    splits: npt.NDArray[np.int8] | None = None
    has_validation: bool = True
    item_titles: Mapping[str, str] = field(default_factory=dict)
    item_categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reading: Reading | None = None

    @property
    def num_rows(self) -> int:
        """n, duplicates included."""
        return len(self.user_index)
