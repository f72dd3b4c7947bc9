"""A model that meets a defect for chosen users: its index finds an item that is not there."""

from __future__ import annotations

from typing import Any

from serve.answers.fake import fake_model
from serve.answers.recommender import Recommender


class BrokenIndex:
    """An exact index that finds, for some users, an item that is not there.

    Args:
        recommender: Has the items.
        users: Rows of those users.

    Attributes:
        searches: How many there were.
    """

    is_exact = True

    def __init__(self, recommender: Recommender, users: tuple[int, ...]) -> None:
        self._exact: Any = recommender._exact
        self._bad = recommender.catalogue.user_embeddings[list(users)]
        self.num_items, self.dim = self._exact.num_items, self._exact.dim
        self.searches = 0

    def search(self, vectors: Any, k: int) -> Any:
        self.searches += 1
        scores, rows = self._exact.search(vectors, k)
        wrong = (vectors[:, None] == self._bad[None]).all(axis=2).any(axis=1)
        rows[wrong, 0] = self.num_items + 5
        return scores, rows


def broken_recommender(users: int, bad: tuple[int, ...] = (), items: int = 400) -> tuple[Recommender, BrokenIndex]:
    """The fake model of so many users, and its index.

    Args:
        bad: Users for whom it is broken.
    """
    _, made = fake_model(users=users, items=items)
    made._index = index = BrokenIndex(made, bad)
    return made, index
