"""Offline distillation: interactions in, a run with user and item embeddings out.

    from distill import build_job, load_interactions, open_run, run_job

    data = load_interactions(Path("data/mine"))
    run_job(build_job("scratch", {"dim": 400}), data, Path("runs/teacher"))
    teacher = open_run(Path("runs/teacher"), data)
    run_job(build_job("ce+rcekd", {"dim": 20}), data, Path("runs/student"), teacher=teacher)
    open_run(Path("runs/student"), data).recommend("user 1", k=10)

Names are imported when they are asked for: what reads data needs none of the two seconds that torch takes.

Shape symbols used in every docstring below this package:

- |U|, |I|: number of users, of items; N: number of entities of one kind (or of both);
- B: rows of a batch; C: candidates per row; K: length of a recommended list;
- d: embedding dimension; d_t, d_s: the teacher's, the student's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "distill.data.interactions": {"Interactions", "load_interactions", "save_interactions"},
    "distill.errors": {"DistillError"},
    "distill.evaluation.protocol": {"Protocol", "evaluate"},
    "distill.evaluation.leaderboard": {"evaluate_run"},
    "distill.run": {"Run", "open_run"},
    "distill.training.job": {"Job", "build_job", "run_job"},
    "distill.training.runner": {"train_all"},
    "distill.training.teacher_import": {"import_embeddings"},
}

if TYPE_CHECKING:
    from distill.data.interactions import Interactions, load_interactions, save_interactions
    from distill.errors import DistillError
    from distill.evaluation.leaderboard import evaluate_run
    from distill.evaluation.protocol import Protocol, evaluate
    from distill.run import Run, open_run
    from distill.training.job import Job, build_job, run_job
    from distill.training.runner import train_all
    from distill.training.teacher_import import import_embeddings
else:

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module 'distill' has no attribute '{name}'")


__all__ = [
    "DistillError",
    "Interactions",
    "Job",
    "Protocol",
    "Run",
    "build_job",
    "evaluate",
    "evaluate_run",
    "import_embeddings",
    "load_interactions",
    "open_run",
    "run_job",
    "save_interactions",
    "train_all",
]
