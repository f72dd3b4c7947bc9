from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from export.ann import build_index, choose_index, measure_recall, open_index, set_search, write_index
from export.errors import RowOutOfRange, TruncatedIndex
from tests.kits.index_kit import IndexKit, Search


class TestFlat(IndexKit):
    def build(self, items: npt.NDArray[np.float32]) -> Search:
        index = build_index("Flat", items)
        search: Search = index.search
        return search


class TestHNSW(IndexKit):
    minimum_recall = 0.95

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        index = build_index("HNSW32", items)
        set_search(index, {"efSearch": 128})
        search: Search = index.search
        return search


def vectors(count: int, seed: int, dim: int = 8) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def test_the_choice_is_the_fastest_that_reaches_the_recall() -> None:
    items, users = vectors(500, 0), vectors(50, 1)
    index, card = choose_index(items, users, 0.9, np.random.default_rng(0))
    good = [row for row in card.candidates if row["ann_recall"] >= 0.9]
    assert min(row["median_us"] for row in good) == next(
        row["median_us"] for row in card.candidates if (row["factory"], row["search"]) == (card.factory, card.search)
    )
    assert (index.ntotal, index.d, card.ann_recall_k) == (500, 8, 20)
    assert card.bytes_per_item == 32.0


def test_what_the_card_says_is_what_the_index_finds() -> None:
    items, users = vectors(500, 0), vectors(50, 1)
    index, card = choose_index(items, users, 0.0, np.random.default_rng(0))
    exact = np.argsort(-(users @ items.T), axis=1)[:, :20]
    assert card.ann_recall == pytest.approx(measure_recall(index.search(users, 20)[1], exact), abs=1e-6)


def test_an_unreachable_recall_leaves_exact_search() -> None:
    # The longest vectors hide the others from a graph built on inner products.
    items = vectors(500, 0) * np.random.default_rng(2).gamma(0.3, size=(500, 1)).astype(np.float32)
    _, card = choose_index(items, vectors(50, 1), 1.0, np.random.default_rng(0))
    assert card.ann_recall >= 1.0 - 1e-9


def test_a_catalogue_shorter_than_the_list() -> None:
    _, card = choose_index(vectors(3, 0), vectors(5, 1), 0.99, np.random.default_rng(0))
    assert card.ann_recall_k == 3
    assert card.ann_recall == 1.0


def test_recall_counts_missing_rows_as_missing() -> None:
    assert measure_recall(np.array([[0, -1], [2, 3]]), np.array([[0, 1], [3, 2]])) == 0.75


def test_the_same_items_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_index(build_index("HNSW16", vectors(300, 0)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_written_index_opens_with_its_search_setting(tmp_path: Path) -> None:
    index = build_index("HNSW16", vectors(300, 0))
    set_search(index, {"efSearch": 77})
    write_index(index, tmp_path / "index.faiss")
    opened: Any = faiss.downcast_index(open_index(tmp_path / "index.faiss", 300, 8))
    assert opened.hnsw.efSearch == 77


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_truncated_index(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "index.faiss"
    write_index(build_index("Flat", vectors(100, 0)), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TruncatedIndex, match="index"):
        open_index(path, 100, 8)


@pytest.mark.parametrize(("items", "dim"), [(99, 8), (100, 9)])
def test_an_index_of_other_items_is_truncated(tmp_path: Path, items: int, dim: int) -> None:
    write_index(build_index("Flat", vectors(100, 0)), tmp_path / "index.faiss")
    with pytest.raises(TruncatedIndex, match="manifest says"):
        open_index(tmp_path / "index.faiss", items, dim)


def test_ids_that_are_no_row_numbers(tmp_path: Path) -> None:
    index = faiss.IndexIDMap(faiss.IndexFlatIP(8))
    index.add_with_ids(vectors(100, 0), np.arange(1000, 1100))
    write_index(index, tmp_path / "index.faiss")
    with pytest.raises(RowOutOfRange, match="row"):
        open_index(tmp_path / "index.faiss", 100, 8)
