from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from export.build.ann import ask, build_index, file_bytes_per_item, list_centroids, open_index, set_search, write_index
from export.bundle.errors import RowOutOfRange, TruncatedIndex
from tests.kits.index_kit import IndexKit, Search


class AskedKit(IndexKit):
    factory: str
    search: dict[str, int]

    def build(self, items: npt.NDArray[np.float32]) -> Search:
        index = build_index(self.factory, items)
        set_search(index, self.search)
        return lambda vectors, k: ask(index, self.search, items, vectors, k)


class TestFlat(AskedKit):
    factory, search = "Flat", {}


class TestHNSW(AskedKit):
    minimum_recall = 0.95
    factory, search = "HNSW32", {"efSearch": 128}


class TestHNSWOfBytes(AskedKit):
    minimum_recall = 0.95
    factory, search = "HNSW16_SQ8", {"efSearch": 128, "k_factor": 2}


class TestIVF(AskedKit):
    factory, search = "IVF4,Flat", {"nprobe": 4}


class TestBytes(AskedKit):
    minimum_recall = 0.99
    factory, search = "SQ8", {"k_factor": 2}


class TestFastScan(AskedKit):
    minimum_recall = 0.95
    fewest_items = 16
    factory, search = "PQ8x4fs", {"k_factor": 8}


class TestIVFFastScan(AskedKit):
    minimum_recall = 0.95
    fewest_items = 16
    factory, search = "IVF4,PQ8x4fs", {"nprobe": 4, "k_factor": 8}


del AskedKit  # pytest would collect it as well


def vectors(count: int, seed: int, dim: int = 8) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


@pytest.mark.parametrize("factory", ["HNSW16", "HNSW16_SQ8", "IVF8,Flat", "IVF8,PQ8x4fs", "SQ8", "PQ4x4fs"])
def test_the_same_items_give_the_same_bytes(tmp_path: Path, factory: str) -> None:
    for name in ("a", "b"):
        write_index(build_index(factory, vectors(400, 0)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_large_graph_is_built_in_blocks_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    items = vectors(400, 0)
    monkeypatch.setattr("export.build.ann.MANY_ITEMS", 400)
    monkeypatch.setattr("export.build.ann.GRAPH_BLOCK", 150)
    graphs = [build_index("HNSW16", items) for _ in range(2)]
    assert graphs[0].ntotal == 400
    assert faiss.serialize_index(graphs[0]).tolist() == faiss.serialize_index(graphs[1]).tolist()
    found = graphs[0].search(items, 1)[1].ravel()
    assert (found == build_index("Flat", items).search(items, 1)[1].ravel()).mean() > 0.95
    with pytest.raises(TimeoutError, match="with 0 of 400 items"):
        build_index("HNSW16", items, seconds=0.0)
    assert build_index("SQ8", items).ntotal == 400


def test_known_centroids_are_taken_over(tmp_path: Path) -> None:
    items = vectors(400, 0)
    first = build_index("IVF8,Flat", items)
    coarse = list_centroids(first)
    assert coarse is not None
    again = build_index("IVF8,Flat", items, coarse=coarse)
    assert faiss.serialize_index(again).tolist() == faiss.serialize_index(first).tolist()
    assert list_centroids(build_index("Flat", items)) is None


@pytest.mark.parametrize("storage", ["Flat", "SQfp16", "SQ8"])
def test_a_graph_holds_the_same_codes_and_its_links(storage: str) -> None:
    items = vectors(400, 0, 12)
    scan = build_index(storage, items)
    graph = build_index("HNSW16" if storage == "Flat" else f"HNSW16_{storage}", items)
    assert isinstance(graph, faiss.IndexHNSW)
    np.testing.assert_array_equal(graph.reconstruct_n(0, 400), scan.reconstruct_n(0, 400))
    links = file_bytes_per_item(graph) - file_bytes_per_item(scan)
    assert 140 <= links <= 150, "32 links of 4 bytes on the ground floor, and what the floors above take"


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
