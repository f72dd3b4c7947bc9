"""Choosing a FAISS index by measurement: the quickest one that finds what exact search finds.

Nothing is assumed of an index: its recall and the time of a single query are measured on this machine, on users' own
vectors (`export/questions.py`), and the whole table goes into the manifest.

Time is bounded for large catalogues. A ladder of settings is climbed no further than to the recall that is wanted.
Lists are clustered once for all indexes over them. A graph over more than 50,000 items is first built over that many:
there it finds more and is quicker than over all, so what does not find enough on the sample, or is slower than the
best index over all items, cannot win and is not built; nor is what would take all graphs beyond three minutes.

Times are of one processor, so that a machine that does something else as well does not change the choice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from export.build.ann import (
    Vectors,
    build_index,
    code_size,
    list_centroids,
    set_search,
    suit_ef_construction,
)
from export.build.index_candidates import IndexCandidate, list_candidates
from export.build.questions import Questions, Rows, draw_questions, measure_recall
from export.bundle.errors import ExportError
from export.bundle.manifest import IndexCard
from export.bundle.rescoring import K_FACTOR

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
