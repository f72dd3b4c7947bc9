"""FAISS indexes of items by inner product: building, asking, measuring, writing and opening them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from export.bundle.errors import RowOutOfRange, TruncatedIndex
from export.bundle.search import K_FACTOR, rescore

Vectors = npt.NDArray[np.float32]
Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

RECALL_K = 20
"""List length at which recall is measured."""

EF_CONSTRUCTION = 200
MANY_ITEMS, EF_CONSTRUCTION_OF_MANY = 200_000, 64
"""From so many items on a graph is built three times quicker, and finds a little less."""
GRAPH_BLOCK = 50_000
"""Items that join such a graph together, after which the clock is looked at."""

TRAINED_PER_LIST = 64
"""Items a list that k-means sees: a quarter of FAISS's default, for a quarter of the time and lists as good."""


def build_index(
    factory: str,
    items: Vectors,
    *,
    coarse: Vectors | None = None,
    ef_construction: int | None = None,
    seconds: float | None = None,
) -> faiss.Index:
    """Build an index over `items` by inner product; row i is item i. The same items give the same index.

    Args:
        factory: FAISS factory string.
        items: Shape (I, d).
        coarse: Centroids of the lists, where they are known already; shape (n, d).
        ef_construction: Of a graph; what suits the number of items when None.
        seconds: Processor time after which a graph over many items is given up; None for never.

    Raises:
        TimeoutError: The graph was given up; says after how many items.
    """
    started = time.process_time()
    index = faiss.index_factory(items.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = ef_construction or suit_ef_construction(len(items))
    if isinstance(index, faiss.IndexIVF):
        index.cp.max_points_per_centroid = TRAINED_PER_LIST
        if coarse is not None:
            index.quantizer.add(coarse)
    with one_thread():
        index.train(items)
        in_blocks = isinstance(index, faiss.IndexHNSW) and len(items) >= MANY_ITEMS
        for start in range(0, len(items), GRAPH_BLOCK if in_blocks else max(1, len(items))):
            spent = time.process_time() - started
            if seconds is not None and spent > seconds:
                raise TimeoutError(f"after {spent:.0f} s with {start:,} of {len(items):,} items")
            index.add(items[start : start + GRAPH_BLOCK] if in_blocks else items)
    return index


def suit_ef_construction(num_items: int) -> int:
    """How thoroughly a graph over so many items is built."""
    return EF_CONSTRUCTION if num_items < MANY_ITEMS else EF_CONSTRUCTION_OF_MANY


def list_centroids(index: faiss.Index) -> Vectors | None:
    """Centroids of an index's lists, shape (n, d); None where it has no lists."""
    if not isinstance(index, faiss.IndexIVF):
        return None
    centroids: Vectors = index.quantizer.reconstruct_n(0, index.nlist)
    return centroids


def set_search(index: faiss.Index, search: Mapping[str, int]) -> None:
    """Store FAISS's search parameters in the index, as the default of a query that gives none."""
    for name, value in search.items():
        if name != K_FACTOR:
            faiss.ParameterSpace().set_index_parameter(index, name, value)


def ask(index: faiss.Index, search: Mapping[str, int], items: npt.NDArray[Any], vectors: Vectors, k: int) -> Found:
    """Ask an index as a server does, `set_search` having been called.

    Args:
        index: Of the items.
        search: Its search parameters; with `k_factor`, what it finds is scored anew.
        items: The stored embeddings, shape (I, d).
        vectors: Shape (B, d).
        k: At most I.

    Returns:
        Scores and rows, shape (B, k), -1 where it found fewer.
    """
    factor = search.get(K_FACTOR)
    if factor is None:
        found: Found = index.search(vectors, k)
        return found
    return rescore(items, vectors, index.search(vectors, min(k * factor, index.ntotal))[1], k)


def code_size(index: faiss.Index) -> int:
    """Bytes of one item's vector or code in the index; links and list entries are not counted."""
    if isinstance(index, faiss.IndexHNSW):
        index = faiss.downcast_index(index.storage)
    return int(index.code_size if isinstance(index, faiss.IndexIVF) else index.sa_code_size())


def read_bytes_per_item(index: faiss.Index, search: Mapping[str, int], items: npt.NDArray[Any]) -> int:
    """Bytes that a query reads of an item: its vector or code, and its stored row where what is found is scored anew.

    Args:
        index: Of the items.
        search: Its search parameters.
        items: The stored embeddings, shape (I, d).
    """
    return code_size(index) + (items.itemsize * items.shape[1] if K_FACTOR in search else 0)


def file_bytes_per_item(index: faiss.Index) -> float:
    """Bytes an item of the index file: code, links, list entry, and its share of codebook, ranges and header."""
    return float(len(faiss.serialize_index(index)) / index.ntotal)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep FAISS on one thread: times are per core, and the same items give the same index bytes."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def write_index(index: faiss.Index, path: Path) -> None:
    """Write the index file.

    Raises:
        OSError: It cannot be written.
    """
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(f"FAISS: {str(error).strip().splitlines()[-1]}") from error


def open_index(path: Path, expected_items: int, dim: int) -> faiss.Index:
    """Read an index and check that it is one of `expected_items` rows of dimension `dim`.

    Raises:
        TruncatedIndex: Unreadable, or of another size.
        RowOutOfRange: It answers with ids that are not row numbers.
    """
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise TruncatedIndex(f"{path}: FAISS cannot read it ({reason}); export the bundle again") from error
    if index.ntotal != expected_items or index.d != dim:
        raise TruncatedIndex(
            f"{path}: {index.ntotal} items of dimension {index.d}, manifest says {expected_items} of {dim};"
            " export the bundle again"
        )
    rows = index.search(np.ones((1, dim), dtype=np.float32), min(RECALL_K, expected_items))[1]
    if rows.max() >= expected_items:
        raise RowOutOfRange(f"{path}: answers with row {rows.max()} of {expected_items}; export the bundle again")
    return index
