"""Choosing a FAISS index by measurement: a quick one that finds what exact search finds.

Nothing is assumed of an index (`export/build/index_candidates.py` lists them): its recall and the time of a single
query are measured on this machine, on users' own vectors (`export/build/questions.py`), and the whole table goes into
the manifest. All but `Flat`, `HNSW` and `IVFn,Flat` score approximately, so what they find is scored anew (`rescore` in
`export/bundle/search.py`).

All together may take `BUDGET_SECONDS` of processor time, or what the caller allows; what that leaves out is in the
table with the reason. Only `Flat` is measured whatever it takes.

- A ladder of settings is climbed no further than to the recall that is wanted, and no further where two rungs in a row
  gained nothing.
- Lists are clustered once for all indexes over them, if that would end in time: ten rounds over some of the items, each
  of an inner product a list, and these take what a batch of items is seen to take. Codes find in the same lists no more
  than vectors do, so they are asked from that number of lists on with which `IVFn,Flat` finds enough.
- A graph over more than 50,000 items is first built over that many: there it finds more and is quicker than over all,
  so what does not find enough on the sample, or is slower than the best index over all items, cannot win and is not
  built. How its time grows is seen from a quarter of the sample.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from export.build.ann import (
    TRAINED_PER_LIST,
    Vectors,
    build_index,
    file_bytes_per_item,
    list_centroids,
    one_thread,
    read_bytes_per_item,
    set_search,
    suit_ef_construction,
)
from export.build.index_candidates import IndexCandidate, list_candidates
from export.build.pareto import find_pareto
from export.build.questions import Questions, Rows, draw_questions, measure_recall
from export.bundle.errors import ExportError
from export.bundle.manifest import IndexCard

TRIAL_ITEMS = 50_000
"""Of the trial of a graph; `SMALLER_TRIAL` of them tell how its time grows."""
SMALLER_TRIAL = 4
BUDGET_SECONDS = 600.0
"""Of processor time: all but the graphs takes half of it for a million items of 20 numbers."""
ABOUT_AS_QUICK = 1.1
"""Times the quickest index's time. Medians differ by some percent from run to run, and over a million items of 20
numbers a graph of 352 bytes an item was 5 % quicker than lists of 88."""
CLUSTERING_ROUNDS = 10
"""Of k-means over the lists, by FAISS's default."""
CLUSTERING_BATCH = 4096
"""Items that tell what a round takes. Single queries read all items each, which at d = 256 takes four times as long."""
OUT_OF_TIME = ("given up after", "were over", "are left")
"""What only reasons of the clock have in them."""
LEAST_GAIN = 0.001
"""Of recall: less, twice in a row, and a ladder ends."""

Row = dict[str, Any]


def choose_index(
    item_embeddings: npt.NDArray[Any],
    user_embeddings: npt.NDArray[Any],
    seen: sp.csr_matrix,
    ann_recall: float,
    rng: np.random.Generator,
    *,
    max_bytes_per_item: float | None = None,
    budget: float = BUDGET_SECONDS,
) -> tuple[faiss.Index, IndexCard]:
    """Build the candidates, measure them, take the smallest of the quick ones that reach `ann_recall`.

    Quick is what takes at most `ABOUT_AS_QUICK` times as long as the quickest.

    Args:
        item_embeddings: As stored, shape (I, d).
        user_embeddings: Shape (U, d); a sample of them asks.
        seen: What users already have, shape (U, I).
        ann_recall: Share of the exact top 20 that must be found; `Flat` always reaches it.
        rng: Draws the users, and the items of a trial.
        max_bytes_per_item: Largest index file, bytes an item; None for any.
        budget: Processor seconds that the choice may take; `Flat` is measured in any case.

    Returns:
        The index, row numbers inside, and its card.

    Raises:
        ExportError: No index is that small.
    """
    items = np.ascontiguousarray(item_embeddings, dtype=np.float32)
    questions = draw_questions(user_embeddings, seen, rng)
    trial = np.sort(rng.choice(len(items), TRIAL_ITEMS, replace=False)) if len(items) > TRIAL_ITEMS else None
    contest = _Contest(items, item_embeddings, questions, ann_recall, max_bytes_per_item, trial, budget)
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
    return index, describe_index(row, questions.k, mark_pareto(contest.rows))


def describe_index(row: Row, k: int, candidates: Sequence[Row]) -> IndexCard:
    """Make the manifest's card of a measured index.

    Args:
        row: The index.
        k: Length of the lists of which it finds `ann_recall`.
        candidates: All rows that were measured with it.
    """
    return IndexCard(row["factory"], row["search"], row["ann_recall"], k, float(row["code_bytes"]), list(candidates))


def count_bytes(index: faiss.Index, rows: Sequence[Row], stored: npt.NDArray[Any]) -> list[Row]:
    """The same rows with what the index takes: bytes an item of its file, and bytes that a query reads of an item."""
    of_file = round(file_bytes_per_item(index), 1)
    return [
        {**row, "bytes_per_item": of_file, "code_bytes": read_bytes_per_item(index, row["search"], stored)}
        for row in rows
    ]


def choices_by_bytes(card: IndexCard, ann_recall: float) -> list[Row]:
    """The indexes that would have been chosen under some bound on the bytes: each quicker than all smaller ones.

    Args:
        card: What `choose_index` says of its choice.
        ann_recall: The recall that was asked for.
    """
    enough = [row for row in card.candidates if "skipped" not in row and _is_enough(row, ann_recall)]
    unbeaten = find_pareto([(row["bytes_per_item"], row["median_us"]) for row in enough])
    return [row for row, is_unbeaten in zip(enough, unbeaten, strict=True) if is_unbeaten]


@dataclass
class _Contest:
    """What has been measured so far; of the indexes only the best is kept, because each may take hundreds of MB."""

    items: Vectors
    stored: npt.NDArray[Any]
    questions: Questions
    ann_recall: float
    max_bytes_per_item: float | None
    trial: Rows | None
    budget: float
    rows: list[Row] = field(default_factory=list)
    best: tuple[faiss.Index, Row] | None = None
    quickest_us: float = math.inf
    coarse: Vectors | None = None
    fewest_probes: int | None = 1
    """Lists in which `IVFn,Flat` finds enough; None where it does not."""

    def __post_init__(self) -> None:
        self.started = time.process_time()
        self.exact = self.questions.answer_exactly(self.items)

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget - (time.process_time() - self.started)

    def enter(self, candidate: IndexCandidate) -> None:
        """Build and measure a candidate, unless it cannot win or there is no time for it."""
        skipped = self._reason_against(candidate)
        if skipped is not None:
            self._skip(candidate, skipped)
            return
        started = time.process_time()
        seconds = self.left if candidate.is_graph and self.trial is not None else None
        try:
            index = build_index(candidate.factory, self.items, coarse=self.coarse, seconds=seconds)
        except TimeoutError as error:
            self._skip(candidate, f"given up {error}")
            return
        built = {"build_seconds": round(time.process_time() - started, 2)}
        if self.coarse is None:
            self.coarse = list_centroids(index)
        allowed = (lambda: self.left > 0) if self.best is not None else lambda: True
        probes = self.fewest_probes or 1
        rows = climb(
            index, candidate, self.stored, self.questions, self.exact, self.ann_recall, probes=probes, allowed=allowed
        )
        for row in count_bytes(index, rows, self.stored):
            self._compare(index, {**row, **built})
        if self.left <= 0 and not any(_is_enough(row, self.ann_recall) for row in rows):
            self._skip(candidate, f"asked no further: the {self.budget:g} s for the choice were over")
        if candidate.factory.endswith(",Flat"):
            enough = [row["search"]["nprobe"] for row in rows if _is_enough(row, self.ann_recall)]
            self.fewest_probes = min(enough, default=None)

    def _skip(self, candidate: IndexCandidate, reason: str) -> None:
        self.rows.append({"factory": candidate.factory, "search": {}, "skipped": reason})

    def _compare(self, index: faiss.Index, row: Row) -> None:
        self.rows.append(row)
        fits = self.max_bytes_per_item is None or row["bytes_per_item"] <= self.max_bytes_per_item
        if not fits or not _is_enough(row, self.ann_recall):
            return
        self.quickest_us = min(self.quickest_us, row["median_us"])
        bound = ABOUT_AS_QUICK * self.quickest_us
        best = self.best[1] if self.best is not None and self.best[1]["median_us"] <= bound else None
        if best is None or (row["median_us"] <= bound and row["bytes_per_item"] < best["bytes_per_item"]):
            self.best = (index, row)

    def _reason_against(self, candidate: IndexCandidate) -> str | None:
        """Why a candidate cannot win or would take too long, or None."""
        if candidate.factory == "Flat":
            return None
        if self.left <= 0:
            return f"the {self.budget:g} s for the choice were over"
        if candidate.num_lists and self.coarse is None:
            return self._too_long(self._guess_clustering(candidate.num_lists), "cluster")
        if candidate.num_lists and self.fewest_probes is None:
            return "vectors in the same lists find too little"
        return self._try_graph(candidate) if candidate.is_graph and self.trial is not None else None

    def _too_long(self, seconds: float, what: str) -> str | None:
        left = max(self.left, 0)
        return f"would take {seconds:.0f} s to {what}, and {left:.0f} s are left" if seconds > left else None

    def _guess_clustering(self, num_lists: int) -> float:
        lists = build_index("Flat", self.items[:num_lists])
        batch = self.items[:CLUSTERING_BATCH]
        started = time.process_time()
        with one_thread():
            lists.search(batch, 1)
        seconds = time.process_time() - started
        rows = min(len(self.items), TRAINED_PER_LIST * num_lists) * CLUSTERING_ROUNDS + len(self.items)
        return seconds * rows / len(batch)

    def _try_graph(self, candidate: IndexCandidate) -> str | None:
        sample = self.items[self.trial]
        seconds: list[float] = []
        for part in (sample[::SMALLER_TRIAL], sample):
            seconds.append(-time.process_time())
            index = build_index(
                candidate.factory, np.ascontiguousarray(part), ef_construction=suit_ef_construction(len(self.items))
            )
            seconds[-1] += time.process_time()
            if reason := self._too_bad(index, candidate, part):
                return reason
        smaller, larger = seconds
        return self._too_long(extrapolate(smaller, larger, len(self.items) / len(sample)), "build")

    def _too_bad(self, index: faiss.Index, candidate: IndexCandidate, part: Vectors) -> str | None:
        questions = self.questions.of_other_items()
        rows = climb(index, candidate, part, questions, questions.answer_exactly(part), self.ann_recall)
        enough = [row for row in rows if _is_enough(row, self.ann_recall)]
        if not enough:
            return f"finds {max(row['ann_recall'] for row in rows):.1%} even of {len(part):,} items"
        median_us = min(row["median_us"] for row in enough)
        if self.best is not None and median_us >= self.best[1]["median_us"]:
            return f"takes {median_us:g} µs even over {len(part):,} items"
        return None


def extrapolate(smaller: float, seconds: float, times: float) -> float:
    """Guess how long a graph over more items takes to build.

    Args:
        smaller: Seconds over the `SMALLER_TRIAL`th part of the trial.
        seconds: Over the trial.
        times: How many times the trial's items there are.
    """
    exponent = max(1.0, math.log(seconds / max(smaller, 1e-9)) / math.log(SMALLER_TRIAL))
    return float(seconds * times**exponent)


def climb(
    index: faiss.Index,
    candidate: IndexCandidate,
    stored: npt.NDArray[Any],
    questions: Questions,
    exact: Sequence[Rows],
    enough: float,
    *,
    probes: int = 1,
    allowed: Callable[[], bool] = lambda: True,
) -> list[Row]:
    """Measure an index with its settings, no further than to `enough` recall.

    Args:
        index: Built as the candidate says.
        candidate: Its ladders; a further one is climbed where it may find more, from the rung at which the last one
            stopped to gain.
        stored: The stored embeddings, shape (I, d).
        questions: What is asked.
        exact: The answers of exact search.
        enough: Recall.
        probes: Rungs of fewer lists are left out.
        allowed: Asked before each rung but the first.
    """
    rows: list[Row] = []
    for ladder in candidate.ladders:
        rungs = [search for search in ladder if search.get("nprobe", probes) >= probes] or list(ladder[-1:])
        climbed: list[Row] = []
        for search in rungs:
            if (rows or climbed) and not allowed():
                return rows + climbed
            found, latency = questions.answer(index, search, stored)
            climbed.append(
                {
                    "factory": candidate.factory,
                    "search": search,
                    "ann_recall": round(measure_recall(found, exact), 6),
                    "median_us": latency.p50,
                    "p99_us": latency.p99,
                }
            )
            if climbed[-1]["ann_recall"] >= enough:
                return rows + climbed
            if _gains_nothing(climbed, enough):
                break
        best, before = climbed[-1]["ann_recall"], rows[-1]["ann_recall"] if rows else -1.0
        rows += climbed
        if best < before + LEAST_GAIN:
            break
        probes = min(row["search"].get("nprobe", 1) for row in climbed if row["ann_recall"] > best - LEAST_GAIN)
    return rows


def _gains_nothing(climbed: Sequence[Row], enough: float) -> bool:
    """Whether the last two rungs found nothing more, as far as what is missing tells it."""
    if len(climbed) < 3:
        return False
    recalls = [row["ann_recall"] for row in climbed[-3:]]
    return bool(np.diff(recalls).max() < min(LEAST_GAIN, (enough - recalls[-1]) / 4))


def mark_pareto(rows: Sequence[Row]) -> list[Row]:
    """The same rows, each that was measured with `pareto`: whether none finds more, is quicker and smaller at once."""
    measured = [row for row in rows if "skipped" not in row]
    unbeaten = find_pareto([(-row["ann_recall"], row["median_us"], row["bytes_per_item"]) for row in measured])
    marks = iter(unbeaten.tolist())
    return [row if "skipped" in row else {**row, "pareto": next(marks)} for row in rows]


def is_late(row: Row) -> bool:
    """Whether an index was left out, or asked no further, for want of time."""
    return any(word in row.get("skipped", "") for word in OUT_OF_TIME)


def _is_enough(row: Row, ann_recall: float) -> bool:
    return bool(row["factory"] == "Flat" or row.get("ann_recall", 0.0) >= ann_recall)
