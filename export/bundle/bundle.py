"""An open bundle: its arrays, its id tables, and its answers without a server."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.bundle.arrays import Array
from export.bundle.errors import RowOutOfRange, UnknownId
from export.bundle.idtable import IdTable, StringColumn
from export.bundle.manifest import FOLD_IN_FILE, INDEX_FILE, RECOMMEND_FILE, Manifest
from export.bundle.search import ExactIndex


@dataclass(frozen=True)
class ScoredItem:
    """An item of an answer.

    Attributes:
        item_id: Outside id.
        score: Inner product, or cosine of similar items.
        title: None where the bundle has no titles.
    """

    item_id: str
    score: float
    title: str | None = None


@dataclass(frozen=True)
class Bundle:
    """An open bundle; arrays are read-only, memory maps or in memory.

    Attributes:
        path: The bundle's directory.
        manifest: What it says about itself.
        user_ids: Outside id of each user row, and back.
        item_ids: Outside id of each item row, and back.
        user_embeddings: float32 or float16, shape (U, d).
        item_embeddings: float32 or float16, shape (I, d).
        seen_indptr: int64, shape (U + 1,).
        seen_indices: int32, shape (counts["seen"],), item rows.
        popularity: int32, shape (I,), item rows, most popular first.
        item_titles: Title of each item row, or None.
        category_names: The category names, or None; None together with the next two.
        category_indptr: int64, shape (I + 1,).
        category_indices: int32, rows of `category_names`.
        heldout_indptr: int64, shape (U + 1,), or None; None together with the next.
        heldout_indices: int32, item rows.
        answer_rows: int32, shape (U, N): the best items each user does not have, -1 where none is left; or None,
            together with the next.
        answer_scores: float32, shape (U, N).
        fold_in_embeddings: float32 or float16, shape (I, d): the vector of a history is the mean of its items' rows; or
            None, where `fold_in.onnx` works otherwise.
        in_memory: Whether the arrays were read, so that the files are not needed any more.
    """

    path: Path
    manifest: Manifest
    user_ids: IdTable
    item_ids: IdTable
    user_embeddings: Array
    item_embeddings: Array
    seen_indptr: npt.NDArray[np.int64]
    seen_indices: npt.NDArray[np.int32]
    popularity: npt.NDArray[np.int32]
    item_titles: StringColumn | None = None
    category_names: StringColumn | None = None
    category_indptr: npt.NDArray[np.int64] | None = None
    category_indices: npt.NDArray[np.int32] | None = None
    heldout_indptr: npt.NDArray[np.int64] | None = None
    heldout_indices: npt.NDArray[np.int32] | None = None
    answer_rows: npt.NDArray[np.int32] | None = None
    answer_scores: npt.NDArray[np.float32] | None = None
    fold_in_embeddings: Array | None = None
    in_memory: bool = False

    def seen(self, user_index: int) -> npt.NDArray[np.int32]:
        """Item rows the user already has, int32 of shape (n,).

        Raises:
            RowOutOfRange: No such user row.
        """
        if not 0 <= user_index < len(self.user_ids):
            raise RowOutOfRange(f"{self.path}: no user row {user_index}; there are {len(self.user_ids)} users")
        return self.seen_indices[self.seen_indptr[user_index] : self.seen_indptr[user_index + 1]]

    def recommend(self, user_id: str, k: int = 10) -> list[ScoredItem]:
        """Answer with the items that a user likes best and does not have, as a server does when asked exactly.

        Args:
            user_id: Outside id of the user.
            k: Length of the list; it is shorter where fewer items are left.

        Returns:
            Items by inner product, best first, equal scores by rising row.

        Raises:
            UnknownId: The bundle has no such user.
            ValueError: `k` is below 1.
        """
        row = self._row(self.user_ids, "user", user_id)
        vector = self.user_embeddings[row].astype(np.float32)
        return self._answer(self._by_inner_product, vector, self.seen(row), k)

    def similar_items(self, item_id: str, k: int = 10) -> list[ScoredItem]:
        """Answer with the items whose vectors point most nearly where an item's does; the item itself is left out.

        Args:
            item_id: Outside id of the item.
            k: Length of the list; it is shorter where there are fewer items.

        Returns:
            Items by cosine, best first, equal scores by rising row.

        Raises:
            UnknownId: The bundle has no such item.
            ValueError: `k` is below 1.
        """
        row = self._row(self.item_ids, "item", item_id)
        return self._answer(self._by_cosine, self._by_cosine.item_vector(row), np.array([row]), k)

    def _row(self, ids: IdTable, kind: str, outside_id: str) -> int:
        row = ids.index_of(outside_id)
        if row < 0:
            raise UnknownId(f"{self.path}: no {kind} {outside_id!r} among {len(ids):,}; give an id of its {kind}s")
        return row

    @cached_property
    def _by_inner_product(self) -> ExactIndex:
        return ExactIndex(self.item_embeddings)

    @cached_property
    def _by_cosine(self) -> ExactIndex:
        return ExactIndex.by_cosine(self.item_embeddings)

    def _answer(
        self, index: ExactIndex, vector: npt.NDArray[np.float32], left_out: npt.NDArray[np.integer[Any]], k: int
    ) -> list[ScoredItem]:
        if k < 1:
            raise ValueError(f"k: {k} must be at least 1")
        scores, rows = index.search(vector[None], min(k + len(left_out), index.num_items))
        places = np.flatnonzero(~np.isin(rows[0], left_out))[:k]
        best = rows[0, places]
        titles = self.item_titles.take(best) if self.item_titles is not None else [None] * len(best)
        return [
            ScoredItem(item_id, float(score), title)
            for item_id, score, title in zip(self.item_ids.take(best), scores[0, places], titles, strict=True)
        ]

    @property
    def index_path(self) -> Path:
        """The FAISS index."""
        return self.path / INDEX_FILE

    @property
    def recommend_onnx_path(self) -> Path:
        """The graph user rows, k → scores, item rows."""
        return self.path / RECOMMEND_FILE

    @property
    def fold_in_onnx_path(self) -> Path:
        """The graph item rows of a history → user vector."""
        return self.path / FOLD_IN_FILE
