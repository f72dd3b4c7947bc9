"""The items in an engine past this process, behind the port: within the caller's time, and left alone while it fails.

Masking stays with the recommender, so an engine is asked for k candidates and nothing else. What it answers with is
checked as far as that is cheap: a row that is no item's would otherwise be an error far from its cause.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from export.bundle import EngineError, rescore
from export.bundle.engines import Card, Engine
from serve.answers.admission import Deadline
from serve.answers.errors import DeadlineExpired, IndexUnavailable
from serve.answers.indexes.breaker import Breaker
from serve.answers.ports import Matrix

UNWELL = ("timeout", "unreachable", "busy", "refused")
"""Reasons that count against the engine; any other answer shows that it is well."""
LEAST_SHARE = 0.1
"""An engine that had a smaller share of its time, because the caller had no more, is not held to have failed."""
LOAD_SECONDS = 30.0
"""Longest time of a search while a model is loaded: the engine may read its index from disk, the loading thread waits
for all others, and neither may let the breaker of those who are answered open."""
AT_ONCE = 32
"""Vectors of one search in the engine; `timeout` is meant for no more."""
FLOOR = 0.05
"""What whoever is refused is told to wait at least, in seconds."""


def _forget(_reason: str) -> None:
    """Take no note of an error."""


Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class EngineIndex:
    """An index of inner products in an engine, whose ids are row numbers. Thread-safe.

    Args:
        engine: Asks it.
        place: Where it is, for errors.
        name: Of the collection.
        card: How it is asked.
        items: The item embeddings, shape (N, d), for what is scored anew.
        timeout: Longest time of a search, in seconds.
        breaker: Of the engine; shared by all its collections.
        count: Takes note of an error, by its reason.
        is_loading: Whether `go_live` is still to come.
    """

    is_exact = False

    def __init__(
        self,
        engine: Engine,
        place: str,
        name: str,
        card: Card,
        items: Matrix,
        *,
        timeout: float = 1.0,
        breaker: Breaker | None = None,
        count: Callable[[str], None] = _forget,
        is_loading: bool = False,
    ) -> None:
        self._engine = engine
        self._place = place
        self._name = name
        self._items = items
        self._live = (timeout, breaker or Breaker())
        self._count_live: Callable[[str], None] = count
        self._count: Callable[[str], None]
        self.go_live()
        if is_loading:
            self._timeout, self._breaker = LOAD_SECONDS, Breaker()
            self._count = _forget
        self._factor = card.search.get("k_factor", 1)
        self.card = card

    def go_live(self) -> None:
        """From now on callers ask: `timeout` holds, and what fails counts."""
        self._timeout, self._breaker = self._live
        self._count = self._count_live

    @property
    def num_items(self) -> int:
        """Number N of items."""
        return self.card.items

    @property
    def dim(self) -> int:
        """Length d of an embedding."""
        return self.card.dim

    @property
    def most(self) -> int:
        """Largest k of a search."""
        return self._engine.most // self._factor

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> Found:
        """The best items of each vector, within `timeout` for each `AT_ONCE` of them.

        Args:
            vectors: float32 of shape (B, d).
            k: How many, at most `most`.

        Returns:
            Scores (B, k), falling, and rows (B, k), -inf and -1 where it found fewer.

        Raises:
            IndexUnavailable: The engine does not answer, or is not asked because it did not.
        """
        return self._in_parts(vectors, k, None)

    def until(self, deadline: Deadline) -> BoundedIndex:
        """The index for a caller who waits no longer than `deadline`."""
        return BoundedIndex(self, deadline)

    def search_until(self, vectors: npt.NDArray[np.float32], k: int, deadline: Deadline) -> Found:
        """As `search`, and before the deadline.

        Raises:
            IndexUnavailable: The engine does not answer, or is not asked because it did not.
            DeadlineExpired: It did not within what the caller had left.
        """
        return self._in_parts(vectors, k, deadline)

    def _in_parts(self, vectors: npt.NDArray[np.float32], k: int, deadline: Deadline | None) -> Found:
        found = []
        for first in range(0, len(vectors), AT_ONCE):
            left = np.inf if deadline is None else deadline.remaining
            if left <= 0 and deadline is not None:
                deadline.check()
            part = np.ascontiguousarray(vectors[first : first + AT_ONCE], dtype=np.float32)
            found.append(self._search(part, k, min(self._timeout, left), is_cut=left < self._timeout))
        if len(found) == 1:
            return found[0]
        return np.concatenate([scores for scores, _ in found]), np.concatenate([rows for _, rows in found])

    def _search(self, vectors: npt.NDArray[np.float32], k: int, seconds: float, *, is_cut: bool) -> Found:
        wait = self._breaker.enter()
        if wait > 0:
            self._count("breaker_open")
            raise IndexUnavailable(f"{self._place}: does not answer, and is left alone for a moment", max(FLOOR, wait))
        try:
            found = self._ask(vectors, k, seconds)
        except EngineError as error:
            raise self._note(error, seconds, is_cut=is_cut) from error
        except BaseException:
            self._breaker.undecided()
            raise
        self._breaker.succeeded()
        return found

    def _ask(self, vectors: npt.NDArray[np.float32], k: int, seconds: float) -> Found:
        wanted = min(k * self._factor, self.num_items, self._engine.most)
        scores, rows = self._engine.search(self._name, vectors, wanted, self.card, seconds)
        if rows.size and (rows.max() >= self.num_items or rows.min() < -1):
            raise EngineError("failed", f"{self._place}: {self._name} holds rows beyond its {self.num_items} items")
        if self._factor > 1:
            return rescore(self._items, vectors, rows, k)
        if wanted < k:
            beyond = ((0, 0), (0, k - wanted))
            return np.pad(scores, beyond, constant_values=-np.inf), np.pad(rows, beyond, constant_values=-1)
        return scores, rows

    def _note(self, error: EngineError, seconds: float, *, is_cut: bool) -> DeadlineExpired | IndexUnavailable:
        is_late = error.reason == "timeout"
        self._count(error.reason)
        if error.reason not in UNWELL:
            self._breaker.succeeded()
        elif is_late and seconds < LEAST_SHARE * self._timeout:
            self._breaker.undecided()
        else:
            self._breaker.failed()
        if is_late and is_cut:
            return DeadlineExpired(f"{self._place}: did not answer within the {seconds * 1000:.0f} ms that were left")
        return IndexUnavailable(str(error), FLOOR)


class BoundedIndex:
    """An `EngineIndex` for one caller.

    Args:
        index: Whose.
        deadline: The caller's.
    """

    is_exact = False

    def __init__(self, index: EngineIndex, deadline: Deadline) -> None:
        self._index = index
        self._deadline = deadline
        self.num_items, self.dim = index.num_items, index.dim

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> Found:
        """See `EngineIndex.search_until`."""
        return self._index.search_until(vectors, k, self._deadline)
