"""What users ask of an index, and the one clock by which indexes are compared.

Users ask with their own vectors. A server asks for the 20 wanted items and as many more as the user already has, and
leaves those out; so recall and time are measured that way. Codebooks and lists are trained on items, graphs are built
of items: every user is held out. Times are of one thread's processor time, so that a machine that does something else
as well does not change a choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import faiss
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.evaluation.metrics import overlap
from export.build.ann import RECALL_K, Vectors, ask, one_thread, set_search

Rows = npt.NDArray[np.int64]
T = TypeVar("T")

MAX_OVER_FETCH = 1024
"""A server asks an approximate index for no more: it scores every item instead."""

MOST_USERS, FEWEST_USERS = 1000, 100
SCANNED_NUMBERS = 10**10
"""Numbers that all users' exhaustive searches together may read: it bounds the time on large catalogues."""
ROUNDS = 2


@dataclass(frozen=True)
class Latency:
    """Microseconds of a single query, over users."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Questions:
    """One query for each of S users.

    Attributes:
        users: Row numbers of the users, shape (S,).
        vectors: Shape (S, d).
        had: Item rows to leave out, a list for each user.
        wanted: How many items each asks for, those to leave out among them.
        k: Length of the lists.
    """

    users: Rows
    vectors: Vectors
    had: Sequence[Rows]
    wanted: Sequence[int]
    k: int

    def of_other_items(self) -> Questions:
        """The same queries where nobody has any of the items."""
        return replace(self, had=[rows[:0] for rows in self.had])

    def answer_exactly(self, items: Vectors) -> list[Rows]:
        """The best k items of each user, fewer where fewer are left."""
        with one_thread():
            # Not by an index, which would hold a copy of the items.
            found = faiss.knn(
                self.vectors, np.ascontiguousarray(items), min(max(self.wanted), len(items)), faiss.METRIC_INNER_PRODUCT
            )[1]
        return self._leave_out(list(found))

    def answer_at_once(self, index: faiss.Index) -> list[Rows]:
        """What an index finds for each user, asked for all of them together and not timed."""
        with one_thread():
            found = index.search(self.vectors, min(max(self.wanted), index.ntotal))[1]
        return self._leave_out(list(found))

    def answer(
        self, index: faiss.Index, search: Mapping[str, int], items: npt.NDArray[Any]
    ) -> tuple[list[Rows], Latency]:
        """Ask an index, one query at a time.

        Args:
            index: Of the items.
            search: Its search parameters.
            items: The stored embeddings, shape (I, d).

        Returns:
            What it found for each user, and its times.
        """
        set_search(index, search)
        with one_thread():
            found, latency = self.time(
                lambda number, wanted: ask(
                    index, search, items, self.vectors[number : number + 1], min(wanted, len(items))
                )[1][0]
            )
        return self._leave_out(found), latency

    def time(self, answer: Callable[[int, int], T]) -> tuple[list[T], Latency]:
        """Ask `answer` for every user's items, one user at a time.

        Args:
            answer: Number of the question and how many items it wants → the answer, computed on this thread.

        Returns:
            The answers, and the median and the 99th percentile over users of the quickest of `ROUNDS` times.
        """
        quickest = np.full(len(self.wanted), np.inf)
        answers: list[T] = []
        for turn in range(ROUNDS):
            for number, wanted in enumerate(self.wanted):
                started = time.thread_time()
                found = answer(number, wanted)
                quickest[number] = min(quickest[number], time.thread_time() - started)
                if turn == 0:
                    answers.append(found)
        p50, p99 = np.quantile(quickest, [0.5, 0.99]) * 1e6
        return answers, Latency(round(float(p50), 1), round(float(p99), 1))

    def _leave_out(self, found: Sequence[Rows]) -> list[Rows]:
        return [rows[(rows >= 0) & ~np.isin(rows, had)][: self.k] for rows, had in zip(found, self.had, strict=True)]


def draw_questions(user_embeddings: npt.NDArray[Any], seen: sp.csr_matrix, rng: np.random.Generator) -> Questions:
    """Draw users who may ask.

    Args:
        user_embeddings: Shape (U, d).
        seen: What they already have, shape (U, I). Who has so much that a server would not ask the index is left out,
            unless that is everybody.
        rng: Draws.
    """
    num_users, num_items = seen.shape
    k = min(RECALL_K, num_items)
    users = np.flatnonzero(np.diff(seen.indptr) <= MAX_OVER_FETCH - k)
    if not len(users):
        users = np.arange(num_users)
    numbers = num_items * user_embeddings.shape[1]
    count = min(max(SCANNED_NUMBERS // numbers, FEWEST_USERS), MOST_USERS, len(users))
    users = np.sort(rng.choice(users, size=count, replace=False))
    vectors = np.ascontiguousarray(user_embeddings[users], dtype=np.float32)
    had = [seen.indices[seen.indptr[user] : seen.indptr[user + 1]][: MAX_OVER_FETCH - k] for user in users]
    return Questions(users, vectors, had, [k + len(rows) for rows in had], k)


def measure_recall(found: Sequence[Rows], exact: Sequence[Rows]) -> float:
    """Mean share of the exact lists that was found; an empty list is found whole."""
    return float(overlap(exact, found).mean())
