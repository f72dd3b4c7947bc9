"""Every candidate built and measured: stored vectors under exhaustive search, graphs over the best of them, baselines.

A graph trades memory for time: it adds 144 (M = 16) or 272 bytes (M = 32) an item. It is built where a scan takes
`GRAPH_FROM_US` or longer, and only over vectors that no others beat in quality, bytes and time at once; the teacher
in float32 always gets one, because that is what is served today.

Where candidates come from: embeddings of a student, of the teacher, or of the SVD of the teacher's scores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.baselines import EASE_MAX_BYTES, tune
from distill.evaluation.metrics import Rows
from distill.methods.svd import truncated_svd
from distill.run import Run
from export.build.ann import Vectors
from export.build.index_choice import LINKS
from export.build.precision import (
    PRODUCT,
    StoredVectors,
    build_graph,
    measure_bytes_per_item,
    store_product_quantized,
    store_vectors,
)
from export.frontier.choice import Objectives, find_pareto
from export.frontier.measuring import Judge, Latency, Quality, kept_share
from export.frontier.plan import Plan

TEACHER, SVD = "teacher", "svd"


@dataclass(frozen=True)
class Source:
    """Embeddings, before they are stored at some precision.

    Attributes:
        name: What the candidates made of it begin with, e.g. "freqd+ce-d16".
        method: A distillation method, "teacher" or "svd".
        backbone: Of the student, or of the teacher it is made of.
        run: The run directory, or None for an SVD.
        users: Shape (|U|, d).
        items: Shape (|I|, d).
        training_seconds: Of the student; 0 for what is not trained here.
        build_seconds: To make it of the teacher.
    """

    name: str
    method: str
    backbone: str
    run: Path | None
    users: Vectors
    items: Vectors
    training_seconds: float = 0.0
    build_seconds: float = 0.0

    @property
    def dim(self) -> int:
        """Embedding dimension d."""
        return int(self.items.shape[1])


def build_sources(teacher: Run, students: Sequence[Run], dims: Sequence[int]) -> Iterator[Source]:
    """Yield the teacher, its SVD at each dimension, and the students."""
    yield open_teacher(teacher)
    started = time.perf_counter()
    users, items = truncated_svd(teacher.user_embeddings, teacher.item_embeddings, max(dims))
    seconds = time.perf_counter() - started
    for dim in dims:
        # The best cut of a lower rank is the beginning of one of a higher rank.
        yield Source(
            f"svd-d{dim}", SVD, _backbone(teacher), None, users[:, :dim], items[:, :dim], build_seconds=seconds
        )
    yield from map(open_student, students)


def open_teacher(run: Run) -> Source:
    """The teacher as it is."""
    return Source(TEACHER, TEACHER, _backbone(run), run.path, run.user_embeddings, run.item_embeddings)


def open_student(run: Run) -> Source:
    """A trained student."""
    seconds = float(run.metrics.get("training", {}).get("seconds", 0.0))
    method = str(run.config.get("method", "unknown"))
    return Source(run.path.name, method, _backbone(run), run.path, run.user_embeddings, run.item_embeddings, seconds)


def _backbone(run: Run) -> str:
    return str(run.config.get("backbone", "unknown"))


def store_all(source: Source, plan: Plan) -> Iterator[tuple[str, StoredVectors, float]]:
    """Store a source at every precision of the plan; the teacher in float32 and product-quantised as well.

    Yields:
        A name of the precision ("pq16" has 16 bytes a code), the vectors, and the seconds it took.
    """
    is_teacher = source.method == TEACHER
    precisions = [*dict.fromkeys(["float32", *plan.precisions])] if is_teacher else plan.precisions
    names = [*precisions, *(f"{PRODUCT}{size}" for size in plan.code_bytes(source.dim) if is_teacher)]
    for name in names:
        started = time.perf_counter()
        stored = store(source, name)
        yield name, stored, time.perf_counter() - started


def store(source: Source, precision: str) -> StoredVectors:
    """Store a source at a precision.

    Args:
        source: Embeddings.
        precision: In `PRECISIONS`, or "pq" and the bytes of a code.

    Raises:
        ExportError: The embeddings do not fit the precision.
    """
    if precision.startswith(PRODUCT):
        return store_product_quantized(source.users, source.items, int(precision.removeprefix(PRODUCT)))
    return store_vectors(source.users, source.items, precision)


GRAPH_FROM_US = 50.0
SCORES = "scores"
SIMD_NUMBERS = 8
"""FAISS decodes scalar-quantised vectors of other lengths number by number."""


@dataclass(frozen=True)
class Candidate:
    """What could be served, and what was measured of it.

    Attributes:
        name: Unique.
        method: A distillation method, "teacher", "svd" or a baseline.
        dim: d; 0 for a baseline.
        precision: "float32", "float16", "int8", or "pq16" for codes of 16 bytes.
        run: The student's or the teacher's run directory, or None.
        index: FAISS factory string; "scores" for a baseline, which has no vectors and which no bundle can hold.
        search: FAISS search parameters.
        ann_recall: Share of the exact top 20 that the index finds.
        quality: Of exact search over what is stored.
        bytes_per_item: Of the index: code, links, share of codebook.
        code_bytes: Of the code alone.
        bytes_per_user: Of the user's vector; of his training items, for a baseline that scores by them.
        latency: Of a single query.
        training_seconds: Of this student; the teacher's are left out.
        build_seconds: To make it small and to build the index, or to fit the baseline.
    """

    name: str
    method: str
    dim: int
    precision: str
    run: Path | None
    index: str
    search: dict[str, int]
    ann_recall: float
    quality: Quality
    bytes_per_item: int
    code_bytes: int
    bytes_per_user: int
    latency: Latency
    training_seconds: float
    build_seconds: float

    @property
    def servable(self) -> bool:
        """Whether a bundle can hold it."""
        return self.index != SCORES

    @property
    def trained(self) -> bool:
        """Whether it is a student."""
        return self.run is not None and self.method != TEACHER


@dataclass(frozen=True)
class _Scan:
    """A candidate under exhaustive search, and what a graph over the same vectors is made and checked with."""

    candidate: Candidate
    items: Vectors
    queries: Vectors
    exact: Rows


def measure_candidates(
    plan: Plan, data: Interactions, teacher: Run, students: Sequence[Run], *, ann_recall: float = 0.99, seed: int = 0
) -> tuple[list[Candidate], list[str]]:
    """Build and measure all.

    Args:
        plan: Precisions, dimensions and baselines.
        data: What the runs were trained on.
        teacher: The teacher.
        students: Finished runs.
        ann_recall: What a graph must find of the exact top 20.
        seed: Of the draw of timed users.

    Returns:
        The candidates, the teacher in float32 first, and notes on what was left out.

    Raises:
        SettingError: The data cannot be judged on.
        ExportError: Embeddings do not fit a precision.
    """
    judge = Judge(data, np.random.default_rng(seed))
    scans: list[_Scan] = []
    number = 1 + len(plan.dims) + len(students)
    sources = build_sources(teacher, students, plan.dims)
    for source in tqdm(sources, desc="measuring", unit="source", total=number, disable=None):
        scans.extend(_scan(source, plan, judge))
    candidates = [scan.candidate for scan in scans]
    candidates += _build_graphs(scans, judge, ann_recall)
    baselines, notes = _fit_baselines(plan, data, judge)
    return candidates + baselines, _note_odd_dims(candidates) + notes


def _note_odd_dims(candidates: Sequence[Candidate]) -> list[str]:
    odd = sorted({each.dim for each in candidates if each.precision in ("float16", "int8") and each.dim % SIMD_NUMBERS})
    if not odd:
        return []
    return [
        f"d = {', '.join(map(str, odd))}: FAISS scans float16 and int8 codes several times quicker where d is a "
        f"multiple of {SIMD_NUMBERS}."
    ]


def _scan(source: Source, plan: Plan, judge: Judge) -> Iterator[_Scan]:
    for name, stored, seconds in store_all(source, plan):
        ranked = judge.rank(stored.users, stored.items)
        queries, exact = judge.queries(stored.users), ranked[judge.sampled]
        candidate = Candidate(
            name=f"{source.name}-{name}",
            method=source.method,
            dim=source.dim,
            precision=name,
            run=source.run,
            index=stored.factory,
            search={},
            ann_recall=judge.ann_recall(stored.index, queries, exact),
            quality=judge.judge(ranked),
            bytes_per_item=measure_bytes_per_item(stored.index),
            code_bytes=stored.code_bytes,
            bytes_per_user=stored.bytes_per_user,
            latency=judge.time_scan(stored.index, stored.factory, queries),
            training_seconds=source.training_seconds,
            build_seconds=source.build_seconds + seconds,
        )
        yield _Scan(candidate, source.items, queries, exact)


def _build_graphs(scans: Sequence[_Scan], judge: Judge, ann_recall: float) -> list[Candidate]:
    teacher = scans[0].candidate.quality
    best = find_pareto([objectives(scan.candidate, teacher) for scan in scans])
    worth = [
        scan
        for scan, is_best in zip(scans, best, strict=True)
        if (is_best or scan is scans[0])
        and not scan.candidate.precision.startswith(PRODUCT)
        and scan.candidate.latency.p50 >= GRAPH_FROM_US
    ]
    bar = tqdm([(scan, links) for scan in worth for links in LINKS], desc="graphs", unit="graph", disable=None)
    found = (_graph(scan, links, judge, ann_recall) for scan, links in bar)
    return [candidate for candidate in found if candidate is not None]


def _graph(scan: _Scan, links: int, judge: Judge, ann_recall: float) -> Candidate | None:
    started = time.perf_counter()
    index, factory = build_graph(scan.items, scan.candidate.precision, links)
    seconds = time.perf_counter() - started
    reached = judge.set_quickest_search(index, scan.queries, scan.exact, ann_recall)
    if reached is None:
        return None
    return replace(
        scan.candidate,
        name=f"{scan.candidate.name}-hnsw{links}",
        index=factory,
        search=reached[0],
        ann_recall=reached[1],
        bytes_per_item=measure_bytes_per_item(index),
        latency=judge.time_index(index, scan.queries),
        build_seconds=scan.candidate.build_seconds + seconds,
    )


def _fit_baselines(plan: Plan, data: Interactions, judge: Judge) -> tuple[list[Candidate], list[str]]:
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
                latency=judge.time_scores(score_rows),
                training_seconds=0.0,
                build_seconds=best.seconds,
            )
        )
    return fitted, notes


def objectives(candidate: Candidate, teacher: Quality) -> Objectives:
    """What candidates are compared in."""
    return Objectives(kept_share(candidate.quality, teacher), candidate.bytes_per_item, candidate.latency.p50)
