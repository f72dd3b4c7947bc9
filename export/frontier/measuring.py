"""Measuring every candidate: the quality of what is stored, its bytes, and its index as `export` would choose it.

Each source is stored at each precision and searched exhaustively first: that gives its quality, the fewest bytes, and
a time, which is the same for all vectors of one shape and so taken once a shape.

Other indexes are for `choose_index`, the one judge that `export` asks too. It takes a minute for tens of thousands of
items and more for many, so it is asked only where it can matter: of vectors that no others beat in quality, bytes and
time at once (and of the teacher, which is what is served today), where a scan takes `SLOW_US` or longer, and in the
element types in which `export` stores a run. Whatever it would choose under some bound on the bytes is a candidate;
int8 and product-quantised vectors are scanned, because their codes are the model and no bundle holds them otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import faiss
import numpy as np
import torch
from tqdm import tqdm

from distill.baselines import EASE_MAX_BYTES, tune
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.metrics import Rows, Values, measure_ranking
from distill.evaluation.ranking import ScoreRows, rank_items, rank_scores
from distill.evaluation.sample import draw_users
from distill.methods.candidates import is_whole
from distill.report.blends import blends_of
from distill.run import Run
from export.build.ann import Vectors, file_bytes_per_item
from export.build.index_choice import BUDGET_SECONDS, choices_by_bytes, choose_index, is_late
from export.build.pareto import find_pareto
from export.build.precision import PRODUCT, StoredVectors
from export.build.publish import had_items
from export.build.quality import CUTOFF
from export.build.questions import MOST_USERS, ROUNDS, Latency, Questions, draw_questions, measure_recall
from export.bundle import K_FACTOR
from export.frontier.candidates import NDCG, RECALL, SCORES, TEACHER, Candidate, Quality, Source, build_sources
from export.frontier.plan import Plan

SLOW_US = 50.0
"""Microseconds of a scan from which on another index is looked for."""
SIMD_NUMBERS = 8
"""FAISS decodes scalar-quantised vectors of other lengths number by number."""
PROTOCOL = "full ranking, train items masked, mean over"
TIMED = (
    f"one query at a time on one thread, in process, in that thread's processor time: index search for {CUTOFF} items "
    f"and as many more as the user already has, up to {MOST_USERS} users, the quickest of {ROUNDS} rounds each; "
    "filtering and transport, the same for all, are not in it"
)


class Judge:
    """Ranks and asks under one protocol, the same users for all.

    Args:
        data: With a validation split.
        seed: Of the draw of users who ask.

    Raises:
        SettingError: No validation interactions, or fewer items than a list has.

    Attributes:
        data: The data.
        sample: Who is ranked for.
        users: Row numbers of the users with items to find, or of a sample of them.
        had: What a user already has when it asks a server, CSR of shape (|U|, |I|).
    """

    def __init__(self, data: Interactions, seed: int) -> None:
        if data.validation.nnz == 0:
            raise SettingError(f"data: '{data.name}' has no validation interactions to choose by; prepare it again")
        if data.num_items < CUTOFF:
            raise SettingError(f"data: '{data.name}' has {data.num_items} items, fewer than a list of {CUTOFF}")
        self.data = data
        self.sample = draw_users(np.diff(data.validation.indptr) + np.diff(data.test.indptr), data.num_items)
        self.users = self.sample.users
        self.had = had_items(data, "train+validation")
        self._seed = seed
        self._by_shape: dict[tuple[str, int], Latency] = {}

    @property
    def convention(self) -> str:
        """How quality is measured, in words, and on whom."""
        return f"{PROTOCOL} {self.sample.words}"

    def rng(self) -> np.random.Generator:
        """A generator that draws the same each time, so that all are asked by the same users."""
        return np.random.default_rng(self._seed)

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

    def questions(self, users: Vectors) -> Questions:
        """What the drawn users ask, with their vectors out of `users`, shape (|U|, d)."""
        return draw_questions(users, self.had, self.rng())

    def time_scan(self, index: faiss.Index, factory: str, questions: Questions, items: Vectors) -> Latency:
        """Time an exhaustive index over `items`, shape (|I|, d)."""
        shape = (factory, int(items.shape[1]))
        if shape not in self._by_shape:
            self._by_shape[shape] = questions.answer(index, {}, items)[1]
        return self._by_shape[shape]


def measure_candidates(
    plan: Plan, judge: Judge, teacher: Run, students: Sequence[Run], *, ann_recall: float = 0.99
) -> tuple[list[Candidate], list[str]]:
    """Build and measure all.

    Args:
        plan: Precisions, dimensions and baselines.
        judge: Of the data that the runs were trained on.
        teacher: The teacher's run.
        students: Finished runs.
        ann_recall: What an index must find of the exact top 20.

    Returns:
        The candidates, the teacher in float32 first, and notes on what was left out.

    Raises:
        ExportError: Embeddings do not fit a precision.
    """
    scans: list[_Scan] = []
    number = 1 + len(plan.dims) + len(students)
    sources = build_sources(teacher, students, plan.dims)
    for source in tqdm(sources, desc="measuring", unit="source", total=number, disable=None):
        scans.extend(_scan(source, plan, judge))
    candidates = [scan.candidate for scan in scans]
    indexed, cut_short = _choose_indexes(scans, judge, ann_recall)
    candidates += indexed
    baselines, notes = _fit_baselines(plan, judge, judge.questions(teacher.user_embeddings))
    return candidates + baselines, _note_blends(students, candidates[0].quality) + _note_odd_dims(
        candidates
    ) + cut_short + notes


@dataclass(frozen=True)
class _Scan:
    """A candidate under exhaustive search, and what it was made of."""

    candidate: Candidate
    source: Source


def _scan(source: Source, plan: Plan, judge: Judge) -> Iterator[_Scan]:
    """Store a source at every precision of the plan; the teacher in float32 and product-quantised as well."""
    is_teacher = source.method == TEACHER
    precisions = [*dict.fromkeys(["float32", *plan.precisions])] if is_teacher else plan.precisions
    for name in [*precisions, *(f"{PRODUCT}{size}" for size in plan.code_bytes(source.dim) if is_teacher)]:
        started = time.perf_counter()
        stored = source.store(name)
        seconds = time.perf_counter() - started
        yield _Scan(_measure_scan(source, name, stored, seconds, judge), source)


def _measure_scan(source: Source, precision: str, stored: StoredVectors, seconds: float, judge: Judge) -> Candidate:
    questions = judge.questions(stored.users)
    found = questions.answer_at_once(stored.index)
    return Candidate(
        name=f"{source.name}-{precision}",
        method=source.method,
        dim=source.dim,
        precision=precision,
        run=source.run,
        index=stored.factory,
        search={},
        ann_recall=measure_recall(found, questions.answer_exactly(stored.items)),
        quality=judge.judge(judge.rank(stored.users, stored.items)),
        bytes_per_item=round(file_bytes_per_item(stored.index)),
        code_bytes=stored.code_bytes,
        bytes_per_user=stored.bytes_per_user,
        latency=judge.time_scan(stored.index, stored.factory, questions, stored.items),
        training_seconds=source.training_seconds,
        build_seconds=source.build_seconds + seconds,
        taught_by=source.taught_by,
    )


def _choose_indexes(scans: Sequence[_Scan], judge: Judge, ann_recall: float) -> tuple[list[Candidate], list[str]]:
    """Look for other indexes where they can matter; of large data all models together have the time that one has."""
    teacher = scans[0].candidate.quality
    best = find_pareto([scan.candidate.compared_with(teacher).costs for scan in scans])
    worth = [
        scan
        for scan, is_best in zip(scans, best, strict=True)
        if (is_best or scan is scans[0])
        and scan.candidate.precision in ("float32", "float16")
        and scan.candidate.latency.p50 >= SLOW_US
    ]
    bar = tqdm(worth, desc="indexes", unit="model", disable=None)
    is_large = not is_whole(*judge.data.train.shape)
    budget = BUDGET_SECONDS / len(worth) if is_large and worth else BUDGET_SECONDS
    found, notes = [], []
    for scan in bar:
        candidates, skipped = _search_otherwise(scan, judge, ann_recall, budget)
        found += candidates
        notes += [
            f"{scan.candidate.name}: {index} is left out: {reason}; 'lowpass export' gives it {BUDGET_SECONDS:g} s."
            for index, reason in skipped.items()
            if is_large
        ]
    return found, notes


def _search_otherwise(
    scan: _Scan, judge: Judge, ann_recall: float, budget: float
) -> tuple[list[Candidate], dict[str, str]]:
    """The same vectors under each index that `export` would choose for them, but the scan and what it beats.

    Returns:
        The candidates, and index → why there was no time for it.
    """
    scanned = scan.candidate
    users, items = scan.source.store(scanned.precision).as_stored
    _, card = choose_index(items, users, judge.had, ann_recall, judge.rng(), budget=budget)
    late = {row["factory"]: row["skipped"] for row in card.candidates if is_late(row)}
    row_bytes = items.itemsize * items.shape[1]
    found = [
        replace(
            scanned,
            name=f"{scanned.name}-{row['factory'].lower().replace(',', '-').replace('_', '-')}",
            index=row["factory"],
            search=row["search"],
            ann_recall=row["ann_recall"],
            bytes_per_item=round(row["bytes_per_item"]) + (row_bytes if K_FACTOR in row["search"] else 0),
            code_bytes=row["code_bytes"],
            latency=Latency(row["median_us"], row["p99_us"]),
            build_seconds=scanned.build_seconds + row["build_seconds"],
        )
        for row in choices_by_bytes(card, ann_recall)
        if row["factory"] != scanned.index
    ]
    unbeaten = find_pareto([(each.bytes_per_item, each.latency.p50) for each in (scanned, *found)])[1:]
    return [candidate for candidate, is_unbeaten in zip(found, unbeaten, strict=True) if is_unbeaten], late


def _note_blends(students: Sequence[Run], teacher: Quality) -> list[str]:
    notes = []
    for name, blend in blends_of(students).items():
        recall, whole = blend["validation"][RECALL], teacher.validation[RECALL]
        kept = f", {recall / whole:.1%} of the teacher's" if whole else ""
        notes.append(
            f"A {name}. Its lists, which no bundle can hold, reach validation {RECALL} {recall:.4f}{kept}; students of "
            "methods that learn lists were taught by them."
        )
        notes += [f"No co-teacher {family}: {reason}" for family, reason in blend["left_out"].items()]
    return notes


def _fit_baselines(plan: Plan, judge: Judge, questions: Questions) -> tuple[list[Candidate], list[str]]:
    data = judge.data
    fitted: list[Candidate] = []
    notes: list[str] = []
    for name in tqdm(plan.baselines, desc="baselines", unit="baseline", disable=None):
        try:
            best = tune(name, data, ease_max_bytes=EASE_MAX_BYTES, progress=True)
        except SettingError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        score_rows = best.baseline.score_rows
        history = 0 if name == "popularity" else 4 * data.train.nnz / data.num_users
        per_item = round(best.baseline.num_bytes / data.num_items)
        fitted.append(
            Candidate(
                name=name,
                method=name,
                dim=0,
                precision="float32",
                run=None,
                index=SCORES,
                search={},
                ann_recall=1.0,
                quality=judge.judge(judge.rank_scores(score_rows)),
                bytes_per_item=per_item,
                code_bytes=per_item,
                bytes_per_user=round(history),
                latency=time_scores(score_rows, questions, data.num_items),
                training_seconds=0.0,
                build_seconds=best.seconds,
            )
        )
    return fitted, notes


def time_scores(score_rows: ScoreRows, questions: Questions, num_items: int) -> Latency:
    """Time a model that scores every item: the scores of one user and their largest."""

    def answer(number: int, wanted: int) -> Rows:
        scores = np.asarray(score_rows(questions.users[number : number + 1]))[0]
        length = min(wanted, num_items)
        best = np.argpartition(-scores, length - 1)[:length]
        ranked: Rows = best[np.argsort(-scores[best])]
        return ranked

    return questions.time(answer)[1]


def _note_odd_dims(candidates: Sequence[Candidate]) -> list[str]:
    odd = sorted({each.dim for each in candidates if each.precision in ("float16", "int8") and each.dim % SIMD_NUMBERS})
    if not odd:
        return []
    return [
        f"d = {', '.join(map(str, odd))}: FAISS scans float16 and int8 codes several times quicker where d is a "
        f"multiple of {SIMD_NUMBERS}."
    ]
