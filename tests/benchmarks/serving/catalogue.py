"""Models to serve: real ones trained for minutes on CiteULike, and made-up ones of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.data.interactions import Interactions
from distill.run import open_run
from distill.training.job import Job, build_job, run_job
from distill.training.trainer import TrainingOptions
from export.build.publish import ExportOptions, export_run
from export.bundle.repository import ModelRepository

Matrix = npt.NDArray[np.float32]
STUDENT_DIM, TEACHER_DIM, EPOCHS = 20, 400, 40


def publish_pair(data: Interactions, folder: Path) -> ModelRepository:
    """A repository of a teacher (d = 400) and two versions of its `ce` student (d = 20), indexes at recall 0.99.

    Both are trained for minutes, not to the end: latency depends on shapes and on how an index finds its way among
    learned vectors, not on their last percent of quality.
    """
    repository = ModelRepository(folder / "models")
    teacher = folder / "teacher"
    run_job(Job(dim=TEACHER_DIM, options=TrainingOptions(epochs=EPOCHS, learning_rate=5e-3)), data, teacher)
    job = build_job("ce", {"dim": STUDENT_DIM, "epochs": EPOCHS})
    run_job(job, data, folder / "student", teacher=open_run(teacher))
    for name in ("student", "student", "teacher"):
        export_run(open_run(folder / name), data, repository, name, ExportOptions(label="stable", ann_recall=0.99))
    return repository


def clustered(count: int, dim: int, clusters: int, rng: np.random.Generator, centres: Matrix | None = None) -> Matrix:
    """Vectors around centres of unlike sizes, float32 (count, dim): embeddings are clustered, not spread evenly.

    Args:
        count: How many.
        dim: Their length.
        clusters: Centres, where none are given.
        rng: Draws them.
        centres: Of another call, so that users stand among items.
    """
    if centres is None:
        centres = rng.normal(size=(clusters, dim)).astype(np.float32)
    shares = np.arange(1, len(centres) + 1) ** -0.5
    members = rng.choice(len(centres), size=count, p=shares / shares.sum())
    vectors = centres[members]
    for start in range(0, count, 1 << 18):
        part = vectors[start : start + (1 << 18)]
        part += rng.normal(scale=0.5, size=part.shape).astype(np.float32)
    return vectors
