from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from export.bundle import search
from export.bundle.search import ExactIndex, rescore, top_k
from tests.kits.index_kit import IndexKit, Search


class TestExactIndex(IndexKit):
    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return ExactIndex(items).search


class TestExactIndexInChunks(IndexKit):
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(search, "CHUNK_SCORES", 64)

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return ExactIndex(items).search


few_values = hnp.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0]))


@given(scores=few_values, data=st.data())
def test_equal_scores_come_by_rising_row(scores: npt.NDArray[np.float32], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]
    assert top_k(scores, k).tolist() == expected


@given(size=st.integers(1, 400), k=st.integers(1, 60), levels=st.integers(1, 50), seed=st.integers(0, 99))
def test_narrowing_down_loses_nothing(size: int, k: int, levels: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, levels, size).astype(np.float32)
    expected = np.argsort(-scores, kind="stable")[:k]
    assert top_k(scores, min(k, size)).tolist() == expected.tolist()


@given(data=st.data(), chunk=st.sampled_from([1, 7, 64, 1 << 20]), k=st.integers(1, 30))
@settings(deadline=None)
def test_chunks_change_nothing(data: st.DataObject, chunk: int, k: int) -> None:
    # Small integers: sums are exact, so chunked and whole products agree to the bit, ties included.
    values = st.integers(-2, 2).map(float)
    items = data.draw(hnp.arrays(np.float32, (30, 3), elements=values))
    vectors = data.draw(hnp.arrays(np.float32, (4, 3), elements=values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "CHUNK_SCORES", chunk)
        scores, rows = ExactIndex(items).search(vectors, k)
    for number, vector in enumerate(vectors):
        all_scores = items @ vector
        expected = sorted(range(30), key=lambda row: (-all_scores[row], row))[:k]
        assert rows[number].tolist() == expected
        assert scores[number].tolist() == all_scores[expected].tolist()


def test_cosine_is_the_cosine_and_zero_for_a_zero_item() -> None:
    items = np.array([[3, 4], [6, 8], [-4, 3], [0, 0]], dtype=np.float32)
    index = ExactIndex.by_cosine(items)
    scores, rows = index.search(index.item_vector(0)[None], 4)
    assert rows.tolist() == [[0, 1, 2, 3]]
    np.testing.assert_allclose(scores, [[1, 1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(index.score(index.item_vector(0), np.array([2, 1])), [0, 1], atol=1e-6)


def test_half_precision_items_are_scored_in_single() -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(size=(50, 4)).astype(np.float16)
    vector = rng.normal(size=4).astype(np.float32)
    scores, rows = ExactIndex(items).search(vector[None], 50)
    np.testing.assert_allclose(scores[0], (items.astype(np.float32) @ vector)[rows[0]], rtol=1e-5)
    assert scores.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_best_candidates_by_their_own_vectors(dtype: str) -> None:
    items = np.array([[1, 0], [3, 0], [2, 0], [9, 9]]).astype(dtype)
    scores, rows = rescore(items, np.array([[1, 0], [-1, 0]], dtype=np.float32), np.array([[0, 1, 2], [2, 1, 0]]), 2)
    assert rows.tolist() == [[1, 2], [0, 2]]
    assert scores.tolist() == [[3, 2], [-1, -2]]
    assert scores.dtype == np.float32


def test_what_an_index_did_not_find_is_not_found_here() -> None:
    items = np.ones((3, 2), dtype=np.float32)
    scores, rows = rescore(items, np.ones((1, 2), dtype=np.float32), np.array([[2, -1, -1]]), 3)
    assert rows.tolist() == [[2, -1, -1]]
    assert scores.tolist() == [[2, -np.inf, -np.inf]]
