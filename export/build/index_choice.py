"""Choosing a FAISS index by measurement: the quickest one that finds what exact search finds.

Nothing is assumed of an index: its recall and the time of a single query are measured on this machine, on users' own
vectors (`export/questions.py`), and the whole table goes into the manifest.

Time is bounded for large catalogues. A ladder of settings is climbed no further than to the recall that is wanted.
Lists are clustered once for all indexes over them. A graph over more than 50,000 items is first built over that many:
there it finds more and is quicker than over all, so what does not find enough on the sample, or is slower than the
best index over all items, cannot win and is not built; nor is what would take all graphs beyond three minutes.

Times are of one processor, so that a machine that does something else as well does not change the choice.

Which indexes are worth building over a catalogue, and how each may be asked. Pure: two sizes in, names out.

| index | from | settings |
|---|---|---|
| `Flat` | 1 item | none: exact |
| `SQ8`, `SQfp16` | 1 | `k_factor`: a byte, or two, a number |
| `HNSW16`, `HNSW32`, `HNSW16_SQ8` | 1 | `efSearch` |
| `PQMx4fs` | 1,024 | `k_factor`; half a byte for every two numbers, or for each: 16 centroids in registers |
| `IVFn,…` over Flat, SQ8, PQMx4fs | 4,096 | `nprobe` of n lists, n about 4√I, and `k_factor` |

All but `Flat`, `HNSW` and `IVFn,Flat` score approximately, so they are asked with `k_factor` (`export/rescoring.py`).

What users ask of an index: their own vectors, and as many items as a server asks for on their behalf.

A server asks for the 20 wanted items and as many more as the user already has, and leaves those out; so recall and
time are measured that way. Codebooks and lists are trained on items, graphs are built of items: every user is held out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from distill.evaluation.metrics import overlap
from export.build.ann import (
    RECALL_K,
    Vectors,
    ask,
    build_index,
    code_size,
    list_centroids,
    one_thread,
    search_exactly,
    set_search,
    suit_ef_construction,
)
from export.bundle.errors import ExportError
from export.bundle.manifest import IndexCard
from export.bundle.rescoring import K_FACTOR

Search = dict[str, int]

LINKS = (16, 32)
EF_SEARCH = (32, 64, 128, 256)
N_PROBE = (2, 4, 8, 16, 32, 64, 128, 256, 512)
CODE_FACTORS = (4, 8, 16, 32, 64)
CODES_FROM, LISTS_FROM = 1024, 4096
POINTS_PER_LIST = 39
"""Fewest items a list for k-means to make sense of, by FAISS's own rule."""


@dataclass(frozen=True)
class IndexCandidate:
    """An index to build, and the ways to ask it.

    Attributes:
        factory: FAISS factory string.
        ladders: Search settings, each ladder from quick to thorough: a rung finds no less than the one before it.
    """

    factory: str
    ladders: tuple[tuple[Search, ...], ...] = (({},),)

    @property
    def is_graph(self) -> bool:
        """Whether building it takes long enough to be worth a trial first."""
        return self.factory.startswith("HNSW")


def list_candidates(num_items: int, dim: int) -> list[IndexCandidate]:
    """What to try, quick builds first and `Flat` before all.

    Args:
        num_items: I.
        dim: d.
    """
    found = [
        IndexCandidate("Flat"),
        IndexCandidate("SQ8", (_factors(1, 2, 4),)),
        IndexCandidate("SQfp16", (_factors(1, 2),)),
    ]
    codes = [f"PQ{count}x4fs" for count in _sub_vectors(dim)] if num_items >= CODES_FROM else []
    found += [IndexCandidate(code, (_factors(*CODE_FACTORS),)) for code in codes]
    lists = count_lists(num_items)
    if lists:
        probes = [probe for probe in N_PROBE if probe <= lists // 2]
        found.append(IndexCandidate(f"IVF{lists},Flat", (tuple({"nprobe": probe} for probe in probes),)))
        found.append(IndexCandidate(f"IVF{lists},SQ8", (_probing(probes, 2),)))
        # The coarse code needs many candidates, the fine one, the last, few.
        found += [
            IndexCandidate(f"IVF{lists},{code}", (_probing(probes, 4 if code == codes[-1] else 16),)) for code in codes
        ]
    plain = tuple({"efSearch": ef} for ef in EF_SEARCH)
    found += [IndexCandidate(f"HNSW{links}", (plain,)) for links in LINKS]
    found.append(IndexCandidate("HNSW16_SQ8", (tuple({**search, K_FACTOR: 2} for search in plain),)))
    return found


def count_lists(num_items: int) -> int:
    """Number of inverted lists: the power of two nearest to 4√I that leaves each list enough items; 0 for a small I."""
    if num_items < LISTS_FROM:
        return 0
    wanted = 4 * num_items**0.5
    lower = 1 << (int(wanted).bit_length() - 1)
    lists = lower if wanted / lower < 2**0.5 else 2 * lower
    return min(lists, 1 << ((num_items // POINTS_PER_LIST).bit_length() - 1))


def _factors(*factors: int) -> tuple[Search, ...]:
    return tuple({K_FACTOR: factor} for factor in factors)


def _probing(probes: list[int], factor: int) -> tuple[Search, ...]:
    return tuple({"nprobe": probe, K_FACTOR: factor} for probe in probes)


def _sub_vectors(dim: int) -> list[int]:
    """Numbers of sub-vectors of one and two numbers each."""
    return [dim // 2, dim] if dim % 2 == 0 else [dim]


Rows = npt.NDArray[np.int64]

MAX_OVER_FETCH = 1024
"""A server asks an approximate index for no more: it scores every item instead."""

MOST_USERS, FEWEST_USERS = 1000, 100
SCANNED_NUMBERS = 10**10
"""Numbers that all users' exhaustive searches together may read: it bounds the time on large catalogues."""
ROUNDS = 2


@dataclass(frozen=True)
class Questions:
    """One query for each of S users.

    Attributes:
        vectors: Shape (S, d).
        had: Item rows to leave out, a list for each user.
        wanted: How many items each asks for.
        k: Length of the lists.
    """

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
            found = search_exactly(items, self.vectors, min(max(self.wanted), len(items)))
        return self._leave_out(list(found))

    def answer(
        self, index: faiss.Index, search: Mapping[str, int], items: npt.NDArray[Any]
    ) -> tuple[list[Rows], float]:
        """Ask an index, one query at a time on one thread.

        Args:
            index: Of the items.
            search: Its search parameters.
            items: The stored embeddings, shape (I, d).

        Returns:
            What it found for each user, and the median over users of the quickest of `ROUNDS` times, in microseconds
            of this thread: a single query never uses another, and what else the machine does is not in it.
        """
        set_search(index, search)
        quickest = np.full(len(self.vectors), np.inf)
        found: list[Rows] = []
        with one_thread():
            for turn in range(ROUNDS):
                for number, wanted in enumerate(self.wanted):
                    vector = self.vectors[number : number + 1]
                    started = time.thread_time()
                    rows = ask(index, search, items, vector, min(wanted, len(items)))[1][0]
                    quickest[number] = min(quickest[number], time.thread_time() - started)
                    if turn == 0:
                        found.append(rows)
        return self._leave_out(found), float(np.median(quickest)) * 1e6

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
    return Questions(vectors, had, [k + len(rows) for rows in had], k)


def measure_recall(found: Sequence[Rows], exact: Sequence[Rows]) -> float:
    """Mean share of the exact lists that was found; an empty list is found whole."""
    return float(overlap(exact, found).mean())


TRIAL_ITEMS = 50_000
GRAPH_SECONDS = 180.0

Row = dict[str, Any]


def choose_index(
    item_embeddings: npt.NDArray[Any],
    user_embeddings: npt.NDArray[Any],
    seen: sp.csr_matrix,
    ann_recall: float,
    rng: np.random.Generator,
    *,
    max_bytes_per_item: float | None = None,
) -> tuple[faiss.Index, IndexCard]:
    """Build the candidates, measure them, take the quickest that reaches `ann_recall`.

    Args:
        item_embeddings: As stored, shape (I, d).
        user_embeddings: Shape (U, d); a sample of them asks.
        seen: What users already have, shape (U, I).
        ann_recall: Share of the exact top 20 that must be found; `Flat` always reaches it.
        rng: Draws the users, and the items of a trial.
        max_bytes_per_item: Largest index file, bytes an item; None for any.

    Returns:
        The index, row numbers inside, and its card.

    Raises:
        ExportError: No index is that small.
    """
    items = np.ascontiguousarray(item_embeddings, dtype=np.float32)
    questions = draw_questions(user_embeddings, seen, rng)
    trial = np.sort(rng.choice(len(items), TRIAL_ITEMS, replace=False)) if len(items) > TRIAL_ITEMS else None
    contest = _Contest(items, item_embeddings, questions, ann_recall, max_bytes_per_item, trial)
    for candidate in tqdm(list_candidates(*items.shape), desc="index", unit="index", disable=None, leave=False):
        contest.enter(candidate)
    if contest.best is None:
        smallest = min(row["bytes_per_item"] for row in contest.rows if _is_enough(row, ann_recall))
        raise ExportError(
            f"max_index_bytes_per_item {max_bytes_per_item:g}: the smallest index that finds {ann_recall:.1%}"
            f" of the exact top {questions.k} takes {smallest:g}; allow that, or a lower ann_recall"
        )
    index, row = contest.best
    set_search(index, row["search"])
    rescored = item_embeddings.itemsize * items.shape[1] if K_FACTOR in row["search"] else 0
    return index, IndexCard(
        factory=row["factory"],
        search=row["search"],
        ann_recall=row["ann_recall"],
        ann_recall_k=questions.k,
        bytes_per_item=float(code_size(index) + rescored),
        candidates=mark_pareto(contest.rows),
    )


@dataclass
class _Contest:
    """What has been measured so far; of the indexes only the best is kept, because each may take hundreds of MB."""

    items: Vectors
    stored: npt.NDArray[Any]
    questions: Questions
    ann_recall: float
    max_bytes_per_item: float | None
    trial: Rows | None
    rows: list[Row] = field(default_factory=list)
    best: tuple[faiss.Index, Row] | None = None
    coarse: Vectors | None = None
    graph_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.exact = self.questions.answer_exactly(self.items)

    def enter(self, candidate: IndexCandidate) -> None:
        """Build and measure a candidate, unless it cannot win."""
        skipped = self._try_graph(candidate) if candidate.is_graph and self.trial is not None else None
        if skipped is not None:
            self.rows.append({"factory": candidate.factory, "search": {}, "skipped": skipped})
            return
        started = time.process_time()
        index = build_index(candidate.factory, self.items, coarse=self.coarse)
        seconds = time.process_time() - started
        if candidate.is_graph:
            self.graph_seconds += seconds
        if self.coarse is None:
            self.coarse = list_centroids(index)
        size = round(len(faiss.serialize_index(index)) / index.ntotal, 1)
        for row in climb(index, candidate, self.stored, self.questions, self.exact, self.ann_recall):
            self._compare(index, {**row, "bytes_per_item": size, "build_seconds": round(seconds, 2)})

    def _compare(self, index: faiss.Index, row: Row) -> None:
        self.rows.append(row)
        fits = self.max_bytes_per_item is None or row["bytes_per_item"] <= self.max_bytes_per_item
        quicker = self.best is None or row["median_us"] < self.best[1]["median_us"]
        if fits and quicker and _is_enough(row, self.ann_recall):
            self.best = (index, row)

    def _try_graph(self, candidate: IndexCandidate) -> str | None:
        """Why a graph over all items cannot win, or None."""
        sample = np.ascontiguousarray(self.items[self.trial])
        questions = self.questions.of_other_items()
        started = time.process_time()
        index = build_index(candidate.factory, sample, ef_construction=suit_ef_construction(len(self.items)))
        seconds = time.process_time() - started
        rows = climb(index, candidate, sample, questions, questions.answer_exactly(sample), self.ann_recall)
        enough = [row for row in rows if _is_enough(row, self.ann_recall)]
        if not enough:
            return f"finds {max(row['ann_recall'] for row in rows):.1%} even of {len(sample):,} items"
        median_us = min(row["median_us"] for row in enough)
        if self.best is not None and median_us >= self.best[1]["median_us"]:
            return f"takes {median_us:g} µs even over {len(sample):,} items"
        growth = len(self.items) / len(sample) * math.log(len(self.items)) / math.log(len(sample))
        if self.graph_seconds + seconds * growth > GRAPH_SECONDS:
            return f"would take {seconds * growth:.0f} s to build"
        return None


def climb(
    index: faiss.Index,
    candidate: IndexCandidate,
    stored: npt.NDArray[Any],
    questions: Questions,
    exact: Sequence[Rows],
    enough: float,
) -> list[Row]:
    """Measure an index with each of its settings, on each ladder no further than to `enough` recall."""
    rows: list[Row] = []
    for ladder in candidate.ladders:
        for search in ladder:
            found, median_us = questions.answer(index, search, stored)
            recall = round(measure_recall(found, exact), 6)
            rows.append(
                {"factory": candidate.factory, "search": search, "ann_recall": recall, "median_us": round(median_us, 1)}
            )
            if recall >= enough:
                break
    return rows


def mark_pareto(rows: Sequence[Row]) -> list[Row]:
    """The same rows, each that was measured with `pareto`: whether none finds more, is quicker and smaller at once."""
    measured = [row for row in rows if "skipped" not in row]
    costs = np.array([(-row["ann_recall"], row["median_us"], row["bytes_per_item"]) for row in measured])
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)
    better = (costs[:, None] < costs[None]).any(axis=2)
    unbeaten: npt.NDArray[np.bool_] = np.logical_not((no_worse & better).any(axis=0))
    marks = iter(unbeaten.tolist())
    return [row if "skipped" in row else {**row, "pareto": next(marks)} for row in rows]


def _is_enough(row: Row, ann_recall: float) -> bool:
    return bool(row["factory"] == "Flat" or row.get("ann_recall", 0.0) >= ann_recall)
