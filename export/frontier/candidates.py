"""Candidates: what could be served, where it comes from, and what it is judged by.

A source is the embeddings of a student, of the teacher, or of the SVD of the teacher's scores. Stored at a precision
and searched by an index, it is a candidate; a baseline is a candidate without embeddings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.evaluation.metrics import Values
from distill.methods.svd import truncated_svd
from distill.report.blends import name_teachers
from distill.run import Run
from export.build.ann import Vectors
from export.build.precision import StoredVectors, store
from export.build.quality import CUTOFF
from export.build.questions import Latency

TEACHER, SVD = "teacher", "svd"
SCORES = "scores"
RECALL, NDCG = f"Recall@{CUTOFF}", f"NDCG@{CUTOFF}"
KEPT_STEP = 0.01
TIME_STEP = 0.25


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
        training_seconds: Time to train the student; 0 for what is not trained here.
        build_seconds: Time to make it of the teacher.
        taught_by: The teacher and co-teachers of a student, in words.
    """

    name: str
    method: str
    backbone: str
    run: Path | None
    users: Vectors
    items: Vectors
    training_seconds: float = 0.0
    build_seconds: float = 0.0
    taught_by: str = ""

    @property
    def dim(self) -> int:
        """Embedding dimension d."""
        return int(self.items.shape[1])

    def store(self, precision: str) -> StoredVectors:
        """Store the embeddings at a precision, as `export.build.precision.store` does."""
        return store(self.users, self.items, precision)


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
    return Source(
        run.path.name,
        str(run.config.get("method", "unknown")),
        _backbone(run),
        run.path,
        run.user_embeddings,
        run.item_embeddings,
        training_seconds=float(run.metrics.get("training", {}).get("seconds", 0.0)),
        taught_by=name_teachers(run),
    )


def _backbone(run: Run) -> str:
    return str(run.config.get("backbone", "unknown"))


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

    def kept_of(self, teacher: Quality) -> float:
        """Share of the teacher's validation Recall@20; 0 where the teacher finds nothing."""
        reference = teacher.validation[RECALL]
        return self.validation[RECALL] / reference if reference else 0.0


@dataclass(frozen=True)
class Objectives:
    """What a candidate is judged by.

    Attributes:
        kept: Quality as a share of the teacher's; more is better.
        bytes_per_item: Less is better.
        microseconds: Of a single query, above 0; less is better.
    """

    kept: float
    bytes_per_item: int
    microseconds: float

    @property
    def costs(self) -> tuple[int, int, int]:
        """Whole steps, less is better in each.

        Quality and time are compared in steps no finer than they can be told: one per cent of the teacher's quality, a
        quarter of a query's time. Without steps, half of all candidates would be in the Pareto set by the luck of
        their last digit.
        """
        time_steps = math.log(self.microseconds) / math.log1p(TIME_STEP)
        return -round(self.kept / KEPT_STEP), self.bytes_per_item, round(time_steps)


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
        search: Search parameters of the index, `k_factor` among them where what it finds is scored anew.
        ann_recall: Share of the exact top 20 that the index finds.
        quality: Quality of exact search over what is stored.
        bytes_per_item: Bytes of the index file, and of the stored row where what is found is scored anew.
        code_bytes: Bytes that a query reads of an item: its code, and that row.
        bytes_per_user: Bytes of a user's vector; of a user's training items, for a baseline that scores by them.
        latency: Time of a single query.
        training_seconds: Time to train this student; the teacher's is left out.
        build_seconds: Time to make it small and to build the index, or to fit the baseline.
        taught_by: The teacher and co-teachers of a student, in words; empty for what nobody taught.
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
    taught_by: str = ""

    @property
    def servable(self) -> bool:
        """Whether a bundle can hold it."""
        return self.index != SCORES

    @property
    def trained(self) -> bool:
        """Whether it is a student."""
        return self.run is not None and self.method != TEACHER

    def compared_with(self, teacher: Quality) -> Objectives:
        """What it is judged by, beside a teacher."""
        return Objectives(self.quality.kept_of(teacher), self.bytes_per_item, self.latency.p50)
