"""What the recommender needs from the outside, as protocols: a bundle, FAISS, ONNX and fakes satisfy them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from export.bundle.shard import UserShard
from serve.answers.admission import Deadline
from serve.answers.types import Rows

Matrix = npt.NDArray[np.floating[Any]]
"""Embeddings of shape (n, d), float32 or float16, possibly memory-mapped."""


class Strings(Protocol):
    """Strings by row number."""

    def __len__(self) -> int: ...

    def get(self, row: int) -> str:
        """The string at `row`."""
        ...

    def take(self, rows: Iterable[int]) -> list[str]:
        """The strings at `rows`, in that order."""
        ...


class Ids(Strings, Protocol):
    """Distinct strings by row number, and back."""

    def index_of(self, id: str, /) -> int:  # noqa: A002 - the outside name of what is looked up
        """The row of `id`, or -1."""
        ...

    def index_many(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """The rows of `ids`, -1 for an unknown one."""
        ...


class CandidateIndex(Protocol):
    """Finds the items with the largest inner product. Thread-safe, immutable."""

    @property
    def num_items(self) -> int:
        """N, the number of items."""
        ...

    @property
    def dim(self) -> int:
        """d, the length of an embedding."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether the answer is the true top-k: an exact index never has to be asked twice."""
        ...

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The best items of each vector.

        Args:
            vectors: float32 of shape (B, d), C-contiguous.
            k: How many; between 1 and N.

        Returns:
            Scores of shape (B, k), falling; rows of shape (B, k), -1 where an approximate index found fewer.
        """
        ...


@runtime_checkable
class RemoteIndex(CandidateIndex, Protocol):
    """An index past this process, whose search takes as long as somebody waits for it."""

    @property
    def most(self) -> int:
        """Largest k of a search."""
        ...

    def until(self, deadline: Deadline) -> CandidateIndex:
        """The same index, whose search ends before the deadline, with a `RequestError` where it must."""
        ...


class ItemScorer(CandidateIndex, Protocol):
    """An exact index that can also score chosen items."""

    def score(self, vector: npt.NDArray[np.float32], rows: Rows) -> npt.NDArray[np.float32]:
        """Scores of shape (n,) of the items at `rows` for one vector of shape (d,)."""
        ...

    def item_vector(self, row: int) -> npt.NDArray[np.float32]:
        """What to search with for items like the one at `row`: float32 of shape (d,)."""
        ...

    def item_vectors(self, rows: Rows) -> npt.NDArray[np.float32]:
        """The same of several items, shape (n, d)."""
        ...


class FoldIn(Protocol):
    """Turns a history into a vector.

    Attributes:
        recent_step: Factor by which a known user's vector follows it when recent items join.
    """

    recent_step: float

    def encode(self, item_index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vector, float32 of shape (d,), of someone who has the items of shape (H,), H ≥ 1."""
        ...


@dataclass(frozen=True)
class Catalogue:
    """Users, items and what is known about them.

    Args:
        user_ids: U outside ids.
        item_ids: N outside ids.
        user_embeddings: Shape (U, d).
        seen_indptr: Shape (U + 1,); user u has the items `seen_indices[seen_indptr[u]:seen_indptr[u + 1]]`.
        seen_indices: Item rows.
        popularity: Item rows, most popular first.
        item_titles: N titles, or None.
        category_names: C names; empty when items have no categories.
        category_indptr: Shape (N + 1,): CSR of the categories of each item; None without categories.
        category_indices: Category rows; None without categories.
        user_shard: Which users these are; None for all.
    """

    user_ids: Ids
    item_ids: Ids
    user_embeddings: Matrix
    seen_indptr: Rows
    seen_indices: Rows
    popularity: Rows
    item_titles: Strings | None = None
    category_names: tuple[str, ...] = ()
    category_indptr: Rows | None = None
    category_indices: Rows | None = None
    user_shard: UserShard | None = None
