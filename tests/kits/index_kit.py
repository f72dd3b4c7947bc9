"""What every index must do, whichever room it lives in: hand in its search, inherit the checks.

A subclass gives `build`, which makes a search over item vectors:

    class TestFlat(IndexKit):
        def build(self, items):
            index = ...
            return lambda vectors, k: index.search(vectors, k)

`search(vectors, k)` takes float32 of shape (B, d) and returns scores (B, k) and rows (B, k), best first, -1 where
there is nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Search = Callable[[npt.NDArray[np.float32], int], tuple[npt.NDArray[Any], npt.NDArray[Any]]]


class IndexKit:
    """Checks against exact search on vectors with a seeded generator."""

    minimum_recall = 1.0
    num_items, dim, num_queries = 300, 8, 20
    fewest_items = 4
    """As many as it can be built of: codebooks need some to be trained on."""

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        raise NotImplementedError

    def vectors(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        rng = np.random.default_rng(7)
        items = rng.normal(size=(self.num_items, self.dim)).astype(np.float32)
        return items, rng.normal(size=(self.num_queries, self.dim)).astype(np.float32)

    def test_every_row_is_an_item_and_none_stands_twice(self) -> None:
        items, queries = self.vectors()
        _, rows = self.build(items)(queries, 10)
        assert rows.shape == (self.num_queries, 10)
        assert rows.min() >= 0
        assert rows.max() < self.num_items
        assert all(len(set(row)) == 10 for row in rows.tolist())

    def test_scores_are_inner_products_best_first(self) -> None:
        items, queries = self.vectors()
        scores, rows = self.build(items)(queries, 10)
        expected = np.take_along_axis(queries @ items.T, rows, axis=1)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
        assert (np.diff(scores, axis=1) <= 1e-6).all()

    def test_finds_what_exact_search_finds(self) -> None:
        items, queries = self.vectors()
        _, rows = self.build(items)(queries, 10)
        exact = np.argsort(-(queries @ items.T), axis=1)[:, :10]
        shares = [len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), exact.tolist(), strict=True)]
        assert np.mean(shares) >= self.minimum_recall

    def test_a_batch_answers_like_single_queries(self) -> None:
        items, queries = self.vectors()
        search = self.build(items)
        together = search(queries, 5)[1]
        alone = np.concatenate([search(queries[row : row + 1], 5)[1] for row in range(len(queries))])
        np.testing.assert_array_equal(together, alone)

    def test_asking_for_more_than_there_is_gives_each_item_at_most_once(self) -> None:
        items, queries = self.vectors()
        _, rows = self.build(items[: self.fewest_items])(queries[:1], self.fewest_items + 5)
        found = [row for row in rows[0].tolist() if row >= 0]
        assert sorted(found) == list(range(self.fewest_items))
