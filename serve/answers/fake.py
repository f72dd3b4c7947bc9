"""A model with known answers and no file: the whole server runs on it, in tests and for client authors.

User u ("user-u") likes item i ("item-i") the more the nearer i is to u on a circle of N items: the best
item is u mod N, then u+1, u-1, u+2, u-2, … The fold-in vector is the mean of the history's item vectors.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from export.bundle import ExactIndex
from serve.answers.ports import Catalogue, Matrix
from serve.answers.recommender import Recommender
from serve.answers.types import IndexSummary, ModelSummary

TILT = 1e-3
"""How far, as a share of one step, the circle is turned for users: u+1 comes before u-1 without a tie."""


class FakeIds:
    """Ids `prefix-0`, `prefix-1`, … in memory.

    Args:
        prefix: What they begin with.
    """

    def __init__(self, prefix: str, count: int) -> None:
        self._ids = [f"{prefix}-{row}" for row in range(count)]
        self._rows = {id_: row for row, id_ in enumerate(self._ids)}

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, row: int) -> str:
        """The id at `row`."""
        return self._ids[row]

    def take(self, rows: Iterable[int]) -> list[str]:
        """The ids at `rows`."""
        return [self._ids[row] for row in rows]

    def index_of(self, id: str, /) -> int:  # noqa: A002 - the port's name
        """The row of `id`, or -1."""
        return self._rows.get(id, -1)

    def index_many(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """The rows of `ids`, -1 for an unknown one."""
        return np.fromiter((self._rows.get(id_, -1) for id_ in ids), dtype=np.int64)


class FakeFoldIn:
    """The mean of the history's item vectors.

    Args:
        item_embeddings: Shape (N, d).
    """

    recent_step = 1.0

    def __init__(self, item_embeddings: Matrix) -> None:
        self._items = item_embeddings

    def encode(self, item_index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The mean vector, float32 of shape (d,)."""
        return np.asarray(self._items[item_index].mean(axis=0), dtype=np.float32)


def fake_catalogue(users: int = 8, items: int = 100) -> tuple[Catalogue, Matrix]:
    """The circle: users with the item opposite to them seen, titles, and categories "even" and "odd".

    Args:
        users: U.
        items: N, at least 4.

    Returns:
        The catalogue and the item embeddings, float32 of shape (N, 2).
    """
    step = 2 * np.pi / items
    angles = np.arange(items) * step
    item_embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    angles = (np.arange(users) % items + TILT) * step
    user_embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    opposite = (np.arange(users) + items // 2) % items
    counts = np.bincount(opposite, minlength=items)
    catalogue = Catalogue(
        user_ids=FakeIds("user", users),
        item_ids=FakeIds("item", items),
        user_embeddings=user_embeddings,
        seen_indptr=np.arange(users + 1),
        seen_indices=opposite.astype(np.int32),
        popularity=np.argsort(-counts, kind="stable").astype(np.int32),
        item_titles=FakeIds("Title", items),
        category_names=("even", "odd"),
        category_indptr=np.arange(items + 1),
        category_indices=(np.arange(items) % 2).astype(np.int32),
    )
    return catalogue, item_embeddings


def fake_model(
    name: str = "fake", version: str = "1", *, users: int = 8, items: int = 100
) -> tuple[ModelSummary, Recommender]:
    """A ready recommender on the circle, and what GetInfo says of it.

    Args:
        users: U.
        items: N, at least 4.
    """
    catalogue, item_embeddings = fake_catalogue(users, items)
    exact = ExactIndex(item_embeddings)
    recommender = Recommender(
        name,
        catalogue,
        index=exact,
        exact=exact,
        cosine=ExactIndex.by_cosine(item_embeddings),
        fold_in=FakeFoldIn(item_embeddings),
    )
    summary = ModelSummary(
        name=name,
        version=version,
        bundle_id="fake",
        backbone="circle",
        method="none",
        teacher="",
        dim=2,
        num_parameters=2 * (users + items),
        users=users,
        items=items,
        quality={"recall@20": 1.0, "ndcg@20": 1.0},
        index=IndexSummary("Flat", {}, 1.0, 20, 8.0, 8 * items),
        size_bytes=8 * (users + items),
    )
    return summary, recommender
