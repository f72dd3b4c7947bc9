"""Where candidates come from: embeddings of a student, of the teacher, or of the SVD of the teacher's scores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.methods.low_rank import cut_to_rank
from distill.run import Run
from export.build.ann import Vectors
from export.build.precision import PRODUCT, StoredVectors, store_product_quantized, store_vectors
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
    users, items = cut_to_rank(teacher.user_embeddings, teacher.item_embeddings, max(dims))
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
