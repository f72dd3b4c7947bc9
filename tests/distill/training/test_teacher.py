from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.backbones import BACKBONES
from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import RunError
from distill.run import TRAJECTORY, Run, open_run
from distill.training.job import build_job, run_job
from distill.training.teacher import open_teacher, score_temperature
from distill.training.teacher_import import import_embeddings
from tests.distill.toy import build_random
from tests.kits.teacher_kit import TeacherKit

TEACHER_DIM = 32


def train(data: Interactions, out: Path, backbone: str, **options: Any) -> None:
    given = {"dim": TEACHER_DIM, "epochs": 30, "learning_rate": 0.02, "batch_size": 256, **options}
    run_job(build_job("scratch", given, backbone=backbone), data, out)


class TestLightGCNTeacher(TeacherKit):
    @classmethod
    def make(cls, data: Interactions, out: Path) -> None:
        train(data, out, "lightgcn")


class TestSimpleXTeacher(TeacherKit):
    @classmethod
    def make(cls, data: Interactions, out: Path) -> None:
        train(data, out, "simplex")


class TestIALSTeacher(TeacherKit):
    @classmethod
    def make(cls, data: Interactions, out: Path) -> None:
        train(data, out, "ials")


class TestImportedTeacher(TeacherKit):
    """Somebody's iALS, of which nothing but the embeddings is known."""

    length = 1.0

    @classmethod
    def make(cls, data: Interactions, out: Path) -> None:
        train(data, out.parent / "source", "ials")
        source = open_run(out.parent / "source")
        np.save(out.parent / "users.npy", cls.length * source.user_embeddings)
        np.save(out.parent / "items.npy", source.item_embeddings)
        import_embeddings(data, out.parent / "users.npy", out.parent / "items.npy", out, "bprmf")


class TestImportedTeacherOfLargeScores(TestImportedTeacher):
    length = 1000.0


def imported(users: Any, items: Any, backbone: str = "mine") -> Run:
    return Run(Path(), {"backbone": backbone, "method": "imported"}, users, items, {})


def test_the_temperature_of_ours_is_the_backbones_and_of_others_is_measured(rng: np.random.Generator) -> None:
    users, items = (rng.normal(size=(size, 6)).astype(np.float32) for size in (40, 300))
    for name, backbone in BACKBONES.items():
        run = Run(Path(), {"backbone": name, "method": "scratch"}, users, items, {})
        assert score_temperature(run) == backbone.score_temperature
    measured = score_temperature(imported(users, items))
    best = np.sort(users @ items.T, axis=1)[:, -100:] / measured
    probabilities = np.exp(best) / np.exp(best).sum(axis=1, keepdims=True)
    assert np.exp(-(probabilities * np.log(probabilities)).sum(axis=1)).mean() == pytest.approx(60, rel=1e-3)
    assert score_temperature(imported(users, items, "simplex")) == measured, "a name is no proof of its scores"
    assert score_temperature(imported(10 * users, items)) == pytest.approx(10 * measured, rel=1e-5)
    assert score_temperature(imported(0 * users, items)) == 1.0


def test_between_equal_backbones_nothing_is_scaled(rng: np.random.Generator, tmp_path: Path) -> None:
    data = build_random(rng)
    for name in ("bprmf", "simplex"):
        train(data, tmp_path / name, name, epochs=2, eval_every=2, patience=2)
        run = open_run(tmp_path / name)
        student = BACKBONES[name].build(BACKBONES[name].Settings(), data, 4)
        np.testing.assert_array_equal(open_teacher(run, data, student).users.numpy(), run.user_embeddings)


def test_a_trajectory_that_cannot_be_read_is_named(rng: np.random.Generator, tmp_path: Path) -> None:
    data = build_random(rng)
    train(data, tmp_path, "bprmf", epochs=2, eval_every=2, patience=2)
    (tmp_path / TRAJECTORY).mkdir()
    (tmp_path / TRAJECTORY / "2.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"trajectory: unreadable checkpoints .*; train the run again"):
        open_teacher(open_run(tmp_path), data, BPRMF(data.num_users, data.num_items, 4))
