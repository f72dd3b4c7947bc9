"""An engine as the loader and the server see it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from export.bundle.engines.card import Card

Vectors = npt.NDArray[np.float32]
Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class Engine(Protocol):
    """Asks one engine, from any thread."""

    @property
    def most(self) -> int:
        """Largest k of a search."""
        ...

    def search(self, name: str, vectors: Vectors, k: int, card: Card, seconds: float) -> Found:
        """The best items of each vector by inner product.

        Args:
            name: Of the collection.
            vectors: Shape (B, d).
            k: How many, at most `most`.
            card: How it is asked.
            seconds: The answer is there, or an error, by then.

        Returns:
            Scores and ids, shape (B, k), best first; -inf and -1 where there are fewer.

        Raises:
            EngineError: Why there is no answer.
        """
        ...

    def read_card(self, name: str, seconds: float) -> Card | None:
        """What is said of a collection; None where it is not there, or not whole.

        Raises:
            EngineError: The engine does not answer.
        """
        ...

    def close(self) -> None:
        """End its connections."""
        ...


def padded(k: int, counts: Any, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> Found:
    """Answers of several lengths as a table.

    Args:
        k: Width of the table.
        counts: Length of each answer, shape (B,).
        scores: All answers one after the other.
        rows: Likewise.

    Returns:
        Shape (B, k), -inf and -1 behind the last.
    """
    lengths = np.asarray(counts, dtype=np.int64)
    if lengths.size and (lengths == k).all():
        return scores.reshape(-1, k), rows.reshape(-1, k)
    all_scores = np.full((len(lengths), k), -np.inf, dtype=np.float32)
    all_rows = np.full((len(lengths), k), -1, dtype=np.int64)
    there = np.arange(k) < lengths[:, None]
    all_scores[there], all_rows[there] = scores, rows
    return all_scores, all_rows
