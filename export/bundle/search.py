"""Search in NumPy: exactly over all items, or among the candidates that an approximate index found.

An index of approximate scores (one whose search parameters hold `K_FACTOR`) is asked for more candidates than are
wanted, and these are scored anew with the items' own vectors. FAISS can do this itself (`IndexRefineFlat`), with a
second copy of the vectors inside the index. A bundle maps `item_embeddings.npy` anyway, so its rows are read instead:
4d bytes an item less, and one definition of a score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

K_FACTOR = "k_factor"
"""Search parameter of an index of approximate scores: how many times more candidates than wanted it is asked for."""

CHUNK_SCORES = 1 << 20
"""Most scores held at once beside the answer: bounds memory for any number of items and vectors."""

VECTORS_TOGETHER = 64
"""Vectors that share one reading of the items: two to eight times quicker than each for itself."""
MERGED_SHARE = 256
"""Items that are read together for each that is kept, at least: else merging costs more than reading."""

GROUP = 32
"""Scores per group when narrowing down a top-k."""


class ExactIndex:
    """All-items search by inner product; equal scores in row order.

    Args:
        item_embeddings: Shape (N, d), float32 or float16, possibly memory-mapped.
        scale: Shape (N,), float32: each item's factor; None for 1.
    """

    is_exact = True

    def __init__(self, item_embeddings: npt.NDArray[Any], scale: npt.NDArray[np.float32] | None = None) -> None:
        self._items = np.asarray(item_embeddings)
        self._scale = scale

    @classmethod
    def by_cosine(cls, item_embeddings: npt.NDArray[Any]) -> ExactIndex:
        """Search by cosine, for vectors of unit length; a zero embedding has cosine 0 with everything."""
        items = np.asarray(item_embeddings)
        norms = np.empty(len(items), dtype=np.float32)
        for start in range(0, len(items), CHUNK_SCORES):
            part = items[start : start + CHUNK_SCORES].astype(np.float32, copy=False)
            norms[start : start + CHUNK_SCORES] = np.sqrt(np.einsum("nd,nd->n", part, part))
        return cls(items, np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0))

    @property
    def num_items(self) -> int:
        """Number N of items."""
        return int(self._items.shape[0])

    @property
    def dim(self) -> int:
        """Length d of an embedding."""
        return int(self._items.shape[1])

    def item_vector(self, row: int) -> npt.NDArray[np.float32]:
        """The item's embedding times its scale, float32 of shape (d,)."""
        vector: npt.NDArray[np.float32] = self._items[row].astype(np.float32)
        return vector if self._scale is None else vector * self._scale[row]

    def item_vectors(self, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """The same of several items, shape (n, d)."""
        vectors: npt.NDArray[np.float32] = self._items.take(rows, axis=0).astype(np.float32, copy=False)
        return vectors if self._scale is None else vectors * self._scale[rows, None]

    def score(self, vector: npt.NDArray[np.float32], rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Scores of chosen items.

        Args:
            vector: Shape (d,).
            rows: Shape (n,).

        Returns:
            float32 of shape (n,).
        """
        chunk = max(1, CHUNK_SCORES // self.dim)
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), chunk):
            part = self._items[rows[start : start + chunk]].astype(np.float32, copy=False)
            scores[start : start + chunk] = part @ vector
        return scores if self._scale is None else scores * self._scale[rows]

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The best items of each vector.

        Args:
            vectors: float32 of shape (B, d).
            k: How many, at least 1.

        Returns:
            Scores (B, k), falling, and rows (B, k), equal scores by rising row; beyond N, -inf and -1.
        """
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        rows = np.full((len(vectors), k), -1, dtype=np.int64)
        found = min(k, self.num_items)
        together = min(VECTORS_TOGETHER, CHUNK_SCORES // (MERGED_SHARE * k))
        group = max(1, together, CHUNK_SCORES // self.num_items)
        for start in range(0, len(vectors), group):
            part = slice(start, start + group)
            scores[part, :found], rows[part, :found] = self._search_group(vectors[part], found)
        return scores, rows

    def _search_group(
        self, vectors: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        chunk = max(1, CHUNK_SCORES // len(vectors))
        best = np.empty((len(vectors), 0), dtype=np.float32)
        best_rows = np.empty((len(vectors), 0), dtype=np.int64)
        for start in range(0, self.num_items, chunk):
            part = self._items[start : start + chunk].astype(np.float32, copy=False)
            scores = vectors @ part.T
            if self._scale is not None:
                scores *= self._scale[start : start + chunk]
            found = [top_k(row, min(k, len(part))) for row in scores]
            near = np.stack([row[places] for row, places in zip(scores, found, strict=True)])
            if best.shape[1] == 0:
                best, best_rows = near, np.stack(found) + start
                continue
            best, best_rows = _merge(best, best_rows, near, np.stack(found) + start, k)
        return best, best_rows


def rescore(
    items: npt.NDArray[Any], vectors: npt.NDArray[np.float32], candidates: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The best k candidates by inner product with the items' own vectors.

    Args:
        items: Item embeddings, float32 or float16, shape (I, d).
        vectors: Queries, shape (B, d).
        candidates: Item rows, shape (B, c), -1 behind the last where an index found fewer.
        k: How many.

    Returns:
        Scores (B, k), falling, and rows (B, k); -inf and -1 where there are fewer candidates.
    """
    scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
    rows = np.full((len(vectors), k), -1, dtype=np.int64)
    for number, vector in enumerate(vectors):
        found = candidates[number]
        if found[-1] < 0:
            found = found[found >= 0]
        # Half the time of items[found] and argsort(-true): this runs in every query.
        true = items.take(found, axis=0).astype(np.float32, copy=False) @ vector
        best = true.argsort()[: -k - 1 : -1]
        scores[number, : len(best)] = true[best]
        rows[number, : len(best)] = found[best]
    return scores, rows


def top_k(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Places of the k largest scores, largest first, equal ones by rising place.

    Args:
        scores: Shape (n,), n ≥ k ≥ 1.

    Returns:
        int64 of shape (k,).
    """
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    places = np.flatnonzero(scores >= _floor(scores, k))
    # argpartition alone would keep an arbitrary one of equal scores at the border.
    near = scores[places]
    places = places[near >= np.partition(near, len(near) - k)[len(near) - k]]
    order: npt.NDArray[np.int64] = places[np.argsort(-scores[places], kind="stable")[:k]]
    return order


def _floor(scores: npt.NDArray[np.float32], k: int) -> np.float32:
    """A score that at least k reach: the k-th largest of the maxima of disjoint groups, in one fast pass."""
    groups = len(scores) // GROUP
    if groups < k:
        return np.float32(-np.inf)
    maxima = scores[: groups * GROUP].reshape(GROUP, groups).max(axis=0)
    floor: np.float32 = np.partition(maxima, groups - k)[groups - k]
    return floor


def _merge(
    scores: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    more_scores: npt.NDArray[np.float32],
    more_rows: npt.NDArray[np.int64],
    k: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    # Chunks come in row order and the sort is stable, so equal scores stay by rising row.
    scores, rows = np.hstack([scores, more_scores]), np.hstack([rows, more_rows])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
