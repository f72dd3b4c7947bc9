"""What every kind of teacher must satisfy for a student of another kind: its test class inherits this and makes one.

class TestSimpleXTeacher(TeacherKit):
    @classmethod
    def make(cls, data, out):
        run_job(Job("simplex", dim=16), data, out)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.backbones import BACKBONES
from distill.data.interactions import Interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.run import Run, open_run
from distill.training.job import build_job, run_job
from distill.training.teacher import open_teacher

STUDENT_DIM, LENGTH, SHARE = 8, 50, 0.9


class TeacherKit:
    """A subclass overrides `make`."""

    @classmethod
    def make(cls, data: Interactions, out: Path) -> None:
        """Write the teacher's run."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> Interactions:
        return synthesize(SyntheticOptions(num_users=300, num_items=200, num_clusters=8, mean_interactions=20))

    @pytest.fixture(scope="class")
    @classmethod
    def teacher(cls, data: Interactions, tmp_path_factory: pytest.TempPathFactory) -> Run:
        out = tmp_path_factory.mktemp("runs") / "teacher"
        cls.make(data, out)
        return open_run(out)

    @pytest.mark.parametrize("backbone", ["bprmf", "simplex"])
    def test_its_softmax_is_neither_flat_nor_one_item(self, data: Interactions, teacher: Run, backbone: str) -> None:
        kind = BACKBONES[backbone]
        taught = open_teacher(teacher, data, kind.build(kind.Settings(), data, STUDENT_DIM))
        scores = (taught.users @ taught.items.T).topk(LENGTH, dim=1).values / kind.score_temperature
        probabilities = torch.softmax(scores, dim=1)
        effective = torch.special.entr(probabilities).sum(dim=1).exp().median().item()
        assert LENGTH / 10 < effective < LENGTH * 0.9

    def test_its_order_stays(self, data: Interactions, teacher: Run) -> None:
        taught = open_teacher(teacher, data, BACKBONES["simplex"].build(BACKBONES["simplex"].Settings(), data, 4))
        ranked = taught.preferences(data.train).top(5)
        scores = np.where(data.train.toarray() > 0, -np.inf, teacher.user_embeddings @ teacher.item_embeddings.T)
        np.testing.assert_array_equal(ranked[:, 0], scores.argmax(axis=1))

    @pytest.mark.parametrize("method", ["ce", "ce+rcekd"])
    def test_a_bprmf_student_keeps_its_share(
        self, data: Interactions, teacher: Run, tmp_path: Path, method: str
    ) -> None:
        options: dict[str, Any] = {"epochs": 40, "learning_rate": 0.02, "patience": 40, "batch_size": 128}
        job = build_job(method, {"dim": STUDENT_DIM, **options})
        metrics = run_job(job, data, tmp_path / "student", teacher=teacher)
        quality = metrics["validation"]["Recall@20"] / teacher.metrics["validation"]["Recall@20"]
        assert quality > SHARE
