"""Measuring a candidate: its quality from what is stored, its bytes, and the time of a single query.

Quality is that of exact search. A query's time is that of `index.search` for one user's vector on one thread, asked
for 20 items and as many more as the user already has, which is what a server must ask for. Every query is asked
`ROUNDS` times, the slowest `TAIL` of them `TAIL_ROUNDS` times more, and its quickest time counts: p99 then tells the
slow queries and not what else the machine did. Exhaustive search costs the same for all vectors of one shape, so it is
timed once per shape.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import faiss
import numpy as np
import numpy.typing as npt
import torch

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.metrics import Rows, measure_ranking, overlap
from distill.evaluation.ranking import ScoreRows, rank_items, rank_scores
from export.build.ann import Vectors, one_thread, set_search
from export.build.index_choice import EF_SEARCH

CUTOFF = 20
TIMED_QUERIES = 400
ROUNDS = 3
TAIL, TAIL_ROUNDS = 0.05, 10
RECALL, NDCG = f"Recall@{CUTOFF}", f"NDCG@{CUTOFF}"
CONVENTION = "full ranking, train items masked, mean over users with relevant items"
TIMED = (
    f"one query at a time on one thread, in process: index search for {CUTOFF} items and as many more as the user "
    f"already has, up to {TIMED_QUERIES} users, the quickest of {ROUNDS} rounds each ({ROUNDS + TAIL_ROUNDS} for the "
    "slowest, so that p99 tells slow queries and not a busy machine); filtering and transport, the same for all, are "
    "not in it"
)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Recall@20 and NDCG@20.

    Attributes:
        validation: Metric → mean.
        test: Likewise; None where nothing is held out for test.
        recalls: Validation Recall@20 of each user with validation items, shape (B,).
    """

    validation: Mapping[str, float]
    test: Mapping[str, float] | None
    recalls: Values = field(compare=False, repr=False)


def kept_share(quality: Quality, teacher: Quality) -> float:
    """Share of the teacher's validation Recall@20; 0 where the teacher finds nothing."""
    reference = teacher.validation[RECALL]
    return quality.validation[RECALL] / reference if reference else 0.0


@dataclass(frozen=True)
class Latency:
    """Microseconds of a single query."""

    p50: float
    p99: float


class Judge:
    """Ranks and times under one protocol, the same users for all.

    Args:
        data: With a validation split.
        rng: Draws the users that are timed.

    Raises:
        SettingError: No validation interactions, or fewer items than a list has.
    """

    def __init__(self, data: Interactions, rng: np.random.Generator) -> None:
        if data.validation.nnz == 0:
            raise SettingError(f"data: '{data.name}' has no validation interactions to choose by; prepare it again")
        if data.num_items < CUTOFF:
            raise SettingError(f"data: '{data.name}' has {data.num_items} items, fewer than a list of {CUTOFF}")
        self.data = data
        self.users = np.flatnonzero(np.diff(data.validation.indptr) + np.diff(data.test.indptr)).astype(np.int64)
        count = min(TIMED_QUERIES, len(self.users))
        self.sampled: Rows = np.sort(rng.choice(len(self.users), size=count, replace=False))
        had = np.diff(data.train.indptr)[self.users[self.sampled]]
        self.wanted = np.minimum(CUTOFF + had, data.num_items).tolist()
        self._by_shape: dict[tuple[str, int], Latency] = {}

    def rank(self, users: Vectors, items: Vectors) -> Rows:
        """The exact top 20 of each of `self.users`, shape (B, 20)."""
        vectors = torch.from_numpy(users), torch.from_numpy(items)
        return rank_items(*vectors, self.data.train, self.users, CUTOFF, progress=True)

    def rank_scores(self, score_rows: ScoreRows) -> Rows:
        """The same for a model that is not an inner product."""
        return rank_scores(score_rows, self.data.train, self.users, CUTOFF, progress=True)

    def judge(self, ranked: Rows) -> Quality:
        """Average over each split's users with relevant items."""
        validation, recalls = self._average(ranked, "validation")
        test = self._average(ranked, "test")[0] if self.data.test.nnz else None
        return Quality(validation, test, recalls)

    def _average(self, ranked: Rows, split: str) -> tuple[dict[str, float], Values]:
        relevant = getattr(self.data, split)
        there = np.diff(relevant.indptr)[self.users] > 0
        per_user = measure_ranking(ranked[there], relevant, self.users[there], [CUTOFF])
        return {name: float(per_user[name].mean()) for name in (RECALL, NDCG)}, per_user[RECALL]

    def queries(self, users: Vectors) -> Vectors:
        """The vectors of the timed users, shape (S, d)."""
        return np.ascontiguousarray(users[self.users[self.sampled]], dtype=np.float32)

    def time_scan(self, index: faiss.Index, factory: str, queries: Vectors) -> Latency:
        """Time an exhaustive index."""
        shape = (factory, int(queries.shape[1]))
        if shape not in self._by_shape:
            self._by_shape[shape] = self.time_index(index, queries)
        return self._by_shape[shape]

    def time_index(self, index: faiss.Index, queries: Vectors) -> Latency:
        """Time any index with the search parameters that are set on it."""
        with one_thread():
            return self._time(lambda row, wanted: index.search(queries[row : row + 1], wanted))

    def time_scores(self, score_rows: ScoreRows) -> Latency:
        """Time a model that scores every item: the scores of one user and their largest."""
        rows = [self.users[row : row + 1] for row in self.sampled]

        def answer(row: int, wanted: int) -> None:
            scores = np.asarray(score_rows(rows[row]))[0]
            best = np.argpartition(-scores, wanted - 1)[:wanted]
            best[np.argsort(-scores[best])]

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._time(answer)
        finally:
            torch.set_num_threads(threads)

    def _time(self, answer: Callable[[int, int], object]) -> Latency:
        quickest = np.full(len(self.wanted), np.inf)
        tail = math.ceil(TAIL * len(quickest))
        for turn in range(ROUNDS + TAIL_ROUNDS):
            asked = range(len(quickest)) if turn < ROUNDS else np.argsort(quickest)[-tail:].tolist()
            for row in asked:
                started = time.perf_counter()
                answer(row, self.wanted[row])
                quickest[row] = min(quickest[row], time.perf_counter() - started)
        p50, p99 = np.quantile(quickest, [0.5, 0.99]) * 1e6
        return Latency(round(float(p50), 1), round(float(p99), 1))

    def ann_recall(self, index: faiss.Index, queries: Vectors, exact: Rows) -> float:
        """Share of the exact top 20 of the timed users that the index finds.

        Args:
            index: Asked as `time_index` asks it.
            queries: Shape (S, d).
            exact: Their exact top 20, shape (S, 20).
        """
        answers = []
        with one_thread():
            for row, wanted in enumerate(self.wanted):
                found = index.search(queries[row : row + 1], wanted)[1][0]
                had = self.data.train[self.users[self.sampled[row]]].indices
                answers.append(found[~np.isin(found, had)][:CUTOFF])
        return float(overlap(exact, answers).mean())

    def set_quickest_search(
        self, index: faiss.Index, queries: Vectors, exact: Rows, enough: float
    ) -> tuple[dict[str, int], float] | None:
        """Set the smallest efSearch at which a graph finds `enough` of the exact top 20.

        Returns:
            The setting and the recall reached; None where no setting reaches it.
        """
        for ef_search in EF_SEARCH:
            set_search(index, {"efSearch": ef_search})
            found = self.ann_recall(index, queries, exact)
            if found >= enough:
                return {"efSearch": ef_search}, found
        return None
