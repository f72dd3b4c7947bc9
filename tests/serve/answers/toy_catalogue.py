"""A small catalogue whose scores are exact and full of ties, and an index that does its worst."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serve.answers.fake import FakeIds
from serve.answers.ports import Catalogue, Matrix

USERS, ITEMS, DIM = 5, 30, 3


def integer_catalogue(seed: int = 0) -> tuple[Catalogue, Matrix]:
    """Small integer embeddings: scores are exact and full of ties."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(-2, 3, (USERS, DIM)), rng.integers(-2, 3, (ITEMS, DIM))
    seen = [np.sort(rng.choice(ITEMS, rng.integers(0, 12), replace=False)) for _ in range(USERS)]
    counts = np.bincount(np.concatenate(seen), minlength=ITEMS)
    catalogue = Catalogue(
        user_ids=FakeIds("u", USERS),
        item_ids=FakeIds("i", ITEMS),
        user_embeddings=users.astype(np.float32),
        seen_indptr=np.concatenate([[0], np.cumsum([len(rows) for rows in seen])]),
        seen_indices=np.concatenate(seen).astype(np.int32),
        popularity=np.argsort(-counts, kind="stable").astype(np.int32),
        item_titles=FakeIds("Title", ITEMS),
        category_names=("a", "b", "empty"),
        category_indptr=np.arange(ITEMS + 1),
        category_indices=(np.arange(ITEMS) % 2).astype(np.int32),
    )
    return catalogue, items.astype(np.float32)


class PoorIndex:
    """An approximate index of the worst kind: it finds only even rows, pads with -1, and orders ties backwards."""

    is_exact = False

    def __init__(self, items: Matrix) -> None:
        self._items = items
        self.num_items, self.dim = items.shape
        self.asked: list[int] = []

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        self.asked.append(k)
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        rows = np.full((len(vectors), k), -1, dtype=np.int64)
        for number, vector in enumerate(vectors):
            found = sorted(range(0, self.num_items, 2), key=lambda row: (-(self._items[row] @ vector), -row))[:k]
            rows[number, : len(found)] = found
            scores[number, : len(found)] = self._items[found] @ vector
        return scores, rows
