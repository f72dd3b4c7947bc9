"""Whether index and fold-in are those of the embeddings: what another version has opens and answers just as well."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.bundle import ExactIndex
from serve.answers.errors import RequestError, UnusableBundle
from serve.answers.ports import CandidateIndex, FoldIn

TOLERANCE = 1e-4
"""Largest difference of a score from the inner product, as a share of the longest vectors' product."""
RECALL_LACK = 0.1
"""An index may find so much less than its manifest says, and what chance makes of a sample."""


def compare_index(
    index: CandidateIndex,
    items: npt.NDArray[Any],
    vectors: npt.NDArray[np.float32],
    path: Path | str,
    *,
    ann_recall: float,
    k: int,
    said_by: str = "the manifest",
    remedy: str = "export the bundle again",
) -> None:
    """Ask an index for the best items of some users, and compare with what the embeddings say.

    Args:
        index: As the server asks it: scores of codes are the items' own.
        items: Item embeddings, shape (I, d).
        vectors: The users', shape (n, d), n >= 1.
        path: Its file, or its place in an engine, for the error.
        ann_recall: Share of the best `k` items that it finds, as `said_by` says.
        k: See above.
        said_by: See above.
        remedy: What to do where it is another's.

    Raises:
        UnusableBundle: Rows out of range or twice, scores that rise or are not the inner products, or a lower recall.
    """
    k = min(k, len(items))
    try:
        scores, rows = index.search(vectors, k)
    except (IndexError, MemoryError, RequestError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or ["out of memory"])[-1][:200]
        raise UnusableBundle(f"{path}: cannot be asked ({reason}): {remedy}") from error
    there = rows >= 0
    if rows.min() < -1 or rows.max() >= len(items) or _has_twins(rows):
        raise UnusableBundle(f"{path}: answers with rows that are not those of {len(items)} items: {remedy}")
    product = np.linalg.norm(vectors, axis=1).max() * math.sqrt(_longest_squared(items))
    own = np.einsum("nkd,nd->nk", items[np.maximum(rows, 0)].astype(np.float32), vectors)
    slack = TOLERANCE * float(product)
    if not np.isfinite(own).all() or not (np.abs(scores - own)[there] <= slack).all():
        raise UnusableBundle(f"{path}: its scores are not the embeddings' inner products: {remedy}")
    falls = scores[:, 1:] <= scores[:, :-1] + slack
    if not falls[there[:, 1:]].all() or (there[:, 1:] & ~there[:, :-1]).any():
        raise UnusableBundle(f"{path}: its answers are not best first: {remedy}")
    best, _ = ExactIndex(items).search(vectors, k)
    recall = float((there & (own >= best[:, -1:] - slack)).mean())
    least = ann_recall - RECALL_LACK - 0.5 / math.sqrt(len(vectors))
    if recall < least:
        raise UnusableBundle(
            f"{path}: finds {recall:.0%} of the best {k} items, {said_by} says {ann_recall:.0%}; is it another"
            f" version's? {remedy[0].upper()}{remedy[1:]}"
        )


def compare_fold_in(fold_in: FoldIn, table: npt.NDArray[Any] | None, items: int, dim: int, path: Path) -> None:
    """Fold some histories in, and compare with the means of the table.

    Args:
        fold_in: As the server asks it.
        table: Shape (I, d); None where the graph has none and need only give finite vectors.
        items: I.
        dim: d.
        path: Its file, for the error.

    Raises:
        UnusableBundle: It fails, or its vectors are others.
    """
    for rows in ([0], [items - 1], [0, items // 2, items - 1]):
        history = np.array(rows, dtype=np.int64)
        try:
            vector = fold_in.encode(history)
        except Exception as error:  # the runtime's own error classes are private
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UnusableBundle(f"{path}: cannot fold a history in ({reason}): export the bundle again") from error
        expected = vector if table is None else table[history].astype(np.float64).mean(axis=0)
        if vector.shape != (dim,) or not np.isfinite(vector).all():
            raise UnusableBundle(f"{path}: does not make {dim} finite numbers of a history: export the bundle again")
        if np.abs(vector - expected).max() > TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise UnusableBundle(f"{path}: its vectors are not the means of its table: export the bundle again")


def _has_twins(rows: npt.NDArray[np.int64]) -> bool:
    ordered = np.sort(rows, axis=1)
    return bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any())


def _longest_squared(items: npt.NDArray[Any]) -> float:
    longest = 0.0
    for start in range(0, len(items), 65536):
        part = items[start : start + 65536].astype(np.float32, copy=False)
        longest = max(longest, float(np.einsum("nd,nd->n", part, part).max()))
    return longest
