from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from export.bundle import TruncatedIndex
from serve.answers.errors import UnusableBundle
from serve.answers.indexes.faiss_index import FaissIndex, limit_native_threads
from tests.kits.index_kit import IndexKit, Search


def build(factory: str, items: npt.NDArray[np.float32]) -> faiss.Index:
    index = faiss.index_factory(items.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        index.train(items)
    index.add(items)
    return index


class TestFlat(IndexKit):
    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("Flat", items)).search


class TestHNSW(IndexKit):
    minimum_recall = 0.95

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("HNSW16", items), {"efSearch": 128}).search


class TestIVF(IndexKit):
    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("IVF4,Flat", items), {"nprobe": 4}).search


class TestIVFOfBytes(IndexKit):
    minimum_recall = 0.99

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("IVF4,SQ8", items), {"nprobe": 4, "k_factor": 2}, items).search


class TestHNSWOfBytes(IndexKit):
    minimum_recall = 0.95

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("HNSW16_SQ8", items), {"efSearch": 128, "k_factor": 2}, items).search


class TestBytes(IndexKit):
    minimum_recall = 0.99

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("SQ8", items), {"k_factor": 2}, items).search


class TestHalfPrecision(IndexKit):
    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("SQfp16", items), {"k_factor": 2}, items).search


class TestFastScan(IndexKit):
    minimum_recall = 0.95
    fewest_items = 16

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("PQ8x4fs", items), {"k_factor": 8}, items).search


class TestIVFFastScan(IndexKit):
    minimum_recall = 0.95
    fewest_items = 16

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        return FaissIndex(build("IVF4,PQ8x4fs", items), {"nprobe": 4, "k_factor": 8}, items).search


KINDS: list[tuple[str, dict[str, int]]] = [
    ("Flat", {}),
    ("HNSW8", {"efSearch": 32}),
    ("HNSW8_SQ8", {"efSearch": 32, "k_factor": 2}),
    ("IVF4,Flat", {"nprobe": 4}),
    ("IVF4,SQ8", {"nprobe": 2, "k_factor": 2}),
    ("IVF4,PQ4x4fs", {"nprobe": 2, "k_factor": 4}),
    ("SQ8", {"k_factor": 2}),
    ("SQfp16", {"k_factor": 1}),
    ("PQ4x4fs", {"k_factor": 4}),
    ("PQ4x4", {}),
    ("RR12,PQ4x4", {}),  # a rotation to more numbers than an item has
]


def items() -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(500, 8)).astype(np.float32)


@pytest.mark.parametrize(("factory", "search"), KINDS)
def test_a_mapped_file_answers_like_the_index_in_memory(tmp_path: Path, factory: str, search: dict[str, int]) -> None:
    index = build(factory, items())
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    opened = FaissIndex.open(tmp_path / "index.faiss", search, items())
    expected = FaissIndex(index, search, items()).search(items()[:9], 7)
    scores, rows = opened.search(items()[:9], 7)
    assert rows.tolist() == expected[1].tolist()
    np.testing.assert_array_equal(scores, expected[0])
    assert (opened.num_items, opened.dim) == (500, 8)
    assert opened.is_exact == (factory == "Flat")


@pytest.mark.parametrize("factory", [factory for factory, _ in KINDS])
@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_a_cut_file_is_a_truncated_index(tmp_path: Path, factory: str, keep: int) -> None:
    path = tmp_path / "index.faiss"
    faiss.write_index(build(factory, items()), str(path))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TruncatedIndex, match=r"index\.faiss.*export the bundle again"):
        FaissIndex.open(path, {})


def test_search_parameters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnusableBundle, match="efSearch"):
        FaissIndex(build("Flat", items()), {"efSearch": 64})


def test_approximate_scores_need_the_items() -> None:
    with pytest.raises(UnusableBundle, match="k_factor"):
        FaissIndex(build("SQ8", items()), {"k_factor": 2})


def test_the_scores_of_codes_are_those_of_the_items() -> None:
    halves = items().astype(np.float16)
    queries = np.random.default_rng(6).normal(size=(5, 8)).astype(np.float32)
    scores, rows = FaissIndex(build("PQ2x4fs", items()), {"k_factor": 4}, halves).search(queries, 10)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ halves.astype(np.float32).T, rows, 1), rtol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("factory", ["IVF4,Flat", "IVF4,SQ8"])
def test_a_query_of_mapped_lists_starts_no_threads(tmp_path: Path, factory: str) -> None:
    faiss.write_index(build(factory, items()), str(tmp_path / "index.faiss"))
    mapped: Any = FaissIndex.open(tmp_path / "index.faiss", {"nprobe": 4})._index
    assert not isinstance(faiss.downcast_InvertedLists(mapped.invlists), faiss.OnDiskInvertedLists)


@pytest.mark.parametrize(
    ("factory", "search"), [("IVF16,Flat", {"nprobe": 1}), ("IVF16,PQ8x4fs", {"nprobe": 1, "k_factor": 4})]
)
def test_what_was_not_found_is_marked(factory: str, search: dict[str, int]) -> None:
    scores, rows = FaissIndex(build(factory, items()), search, items()).search(items()[:3], 400)
    assert rows.shape == scores.shape == (3, 400)
    assert (rows[:, -1] == -1).all()
    for found in rows.tolist():
        assert len({row for row in found if row >= 0}) == sum(row >= 0 for row in found)


def test_many_threads_get_the_answers_of_one() -> None:
    index = FaissIndex(build("HNSW8", items()), {"efSearch": 64})
    queries = np.random.default_rng(6).normal(size=(200, 8)).astype(np.float32)
    alone = [index.search(query[None], 10)[1].tolist() for query in queries]
    with ThreadPoolExecutor(8, initializer=limit_native_threads) as pool:
        together = list(pool.map(lambda query: index.search(query[None], 10)[1].tolist(), queries))
    assert together == alone


def test_a_serving_thread_makes_no_team() -> None:
    with ThreadPoolExecutor(1, initializer=limit_native_threads) as pool:
        assert pool.submit(faiss.omp_get_max_threads).result() == 1
