"""Choosing a FAISS index by measurement: the fastest one that finds what exact search finds.

Candidates are exhaustive search (`Flat`) and graphs (`HNSW16`, `HNSW32`) by inner product. A graph built for
inner products of vectors of unequal length can miss much, so nothing is assumed: recall against exact search
and the time of a single query on one thread are measured on users' own vectors, and the whole table goes
into the manifest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from export.errors import RowOutOfRange, TruncatedIndex
from export.manifest import IndexCard

Vectors = npt.NDArray[np.float32]

RECALL_K = 20
"""List length at which recall is measured: what a query for a few items over-fetches."""

EF_CONSTRUCTION = 200
LINKS = (16, 32)
EF_SEARCH = (32, 64, 128, 256)
SAMPLED_USERS = 1000
TIMED_QUERIES = 200


def choose_index(
    item_embeddings: Vectors,
    user_embeddings: Vectors,
    ann_recall: float,
    rng: np.random.Generator,
) -> tuple[faiss.Index, IndexCard]:
    """Build the candidates, measure them, take the fastest that reaches `ann_recall`.

    Args:
        item_embeddings: Shape (I, d).
        user_embeddings: Shape (U, d); a sample of them are the queries.
        ann_recall: Share of the exact top 20 that must be found; `Flat` always reaches it.
        rng: Draws the sample.

    Returns:
        The index, row numbers inside, and its card.
    """
    items = np.ascontiguousarray(item_embeddings, dtype=np.float32)
    queries = sample_rows(user_embeddings, SAMPLED_USERS, rng)
    k = min(RECALL_K, len(items))
    with one_thread():
        exact = search_exactly(items, queries, k)
        measured: list[tuple[faiss.Index, dict[str, Any]]] = []
        for factory in tqdm(_factories(), desc="index", unit="index", disable=None, leave=False):
            index = build_index(factory, items)
            measured.extend(
                (index, _measure(index, factory, search, queries, exact)) for search in _search_settings(factory)
            )
    good = [(index, row) for index, row in measured if row["ann_recall"] >= ann_recall or row["factory"] == "Flat"]
    index, row = min(good, key=lambda pair: float(pair[1]["median_us"]))
    set_search(index, row["search"])
    return index, IndexCard(
        factory=row["factory"],
        search=row["search"],
        ann_recall=row["ann_recall"],
        ann_recall_k=k,
        bytes_per_item=4.0 * items.shape[1],
        candidates=[row for _, row in measured],
    )


def _factories() -> list[str]:
    return ["Flat", *(f"HNSW{links}" for links in LINKS)]


def _search_settings(factory: str) -> list[dict[str, int]]:
    return [{"efSearch": ef} for ef in EF_SEARCH] if factory.startswith("HNSW") else [{}]


def build_index(factory: str, items: Vectors) -> faiss.Index:
    """Build an index over `items` of shape (I, d) by inner product; row i is item i."""
    index = faiss.index_factory(items.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = EF_CONSTRUCTION
    index.add(items)
    return index


def set_search(index: faiss.Index, search: dict[str, int]) -> None:
    """Store search parameters in the index, as the default of a query that gives none."""
    for name, value in search.items():
        faiss.ParameterSpace().set_index_parameter(index, name, value)


def sample_rows(vectors: npt.NDArray[Any], count: int, rng: np.random.Generator) -> Vectors:
    """At most `count` rows of `vectors`, drawn without replacement, float32 of shape (≤ count, d)."""
    rows = np.sort(rng.choice(len(vectors), size=min(count, len(vectors)), replace=False))
    return np.ascontiguousarray(vectors[rows], dtype=np.float32)


def search_exactly(items: Vectors, queries: Vectors, k: int) -> npt.NDArray[np.int64]:
    """Rows of the k largest inner products, int64 of shape (B, k)."""
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    rows: npt.NDArray[np.int64] = index.search(queries, k)[1]
    return rows


def measure_recall(found: npt.NDArray[np.int64], exact: npt.NDArray[np.int64]) -> float:
    """Mean share of `exact` that is in `found`, both of shape (B, k)."""
    shares = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, exact, strict=True)]
    return float(np.mean(shares))


def _measure(
    index: faiss.Index, factory: str, search: dict[str, int], queries: Vectors, exact: npt.NDArray[np.int64]
) -> dict[str, Any]:
    set_search(index, search)
    k = exact.shape[1]
    found = index.search(queries, k)[1]
    return {
        "factory": factory,
        "search": search,
        "ann_recall": round(measure_recall(found, exact), 6),
        "median_us": round(time_queries(index, queries, k), 1),
    }


def time_queries(index: faiss.Index, queries: Vectors, k: int) -> float:
    """Median microseconds of a single query on this thread."""
    seconds = []
    for row in range(min(TIMED_QUERIES, len(queries))):
        query = queries[row : row + 1]
        started = time.perf_counter()
        index.search(query, k)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e6


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
