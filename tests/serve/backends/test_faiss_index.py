from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from export.bundle import TruncatedIndex
from serve.backends.faiss_index import FaissIndex, limit_native_threads
from serve.errors import UnusableBundle
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


def items() -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(500, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("factory", "search"), [("Flat", {}), ("HNSW8", {"efSearch": 32}), ("IVF4,Flat", {"nprobe": 4}), ("PQ4x4", {})]
)
def test_a_mapped_file_answers_like_the_index_in_memory(tmp_path: Path, factory: str, search: dict[str, int]) -> None:
    index = build(factory, items())
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    opened = FaissIndex.open(tmp_path / "index.faiss", factory, search)
    expected = FaissIndex(index, search).search(items()[:9], 7)
    scores, rows = opened.search(items()[:9], 7)
    assert rows.tolist() == expected[1].tolist()
    np.testing.assert_array_equal(scores, expected[0])
    assert (opened.num_items, opened.dim) == (500, 8)
    assert opened.is_exact == (factory == "Flat")


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF4,Flat"])
@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_a_cut_file_is_a_truncated_index(tmp_path: Path, factory: str, keep: int) -> None:
    path = tmp_path / "index.faiss"
    faiss.write_index(build(factory, items()), str(path))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TruncatedIndex, match=r"index\.faiss.*export the bundle again"):
        FaissIndex.open(path, factory, {})


def test_search_parameters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnusableBundle, match="efSearch"):
        FaissIndex(build("Flat", items()), {"efSearch": 64})


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
