from __future__ import annotations

from pathlib import Path

import pytest
from export.frontier.training import train_students

from distill.data.interactions import Interactions, load_interactions
from distill.errors import RunError
from distill.run import Run, open_run
from distill.training.checkpoint import STATE_FILE
from distill.training.job import Job, run_job
from distill.training.trainer import Trainer
from export.frontier import training
from export.frontier.plan import Plan

QUICK = {"epochs": 4, "eval_every": 2, "patience": 4, "batch_size": 256}
PLAN = Plan(methods=("scratch", "ce"), dims=(4,), training=QUICK)


def train(workplace: Path, runs: Path, plan: Plan = PLAN, processes: int = 1) -> list[Path]:
    data, teacher = load_interactions(workplace / "data"), open_run(workplace / "teacher")
    found = train_students(plan.jobs(), workplace / "data", data, teacher, runs, processes=processes)
    return [run.path for run in found]


def test_what_is_finished_is_not_trained_again(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(workplace, tmp_path) == [tmp_path / "scratch-d4", tmp_path / "ce-d4"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    trained: list[Path] = []

    def spy(job: Job, data: Interactions, out: Path, *, teacher: Run, resume: bool) -> None:
        trained.append(out)
        run_job(job, data, out, teacher=teacher, resume=resume)

    monkeypatch.setattr(training, "run_job", spy)
    train(workplace, tmp_path)
    assert trained == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    train(workplace, tmp_path, Plan(methods=("scratch", "ce"), dims=(4, 2), training=QUICK))
    assert trained == [tmp_path / "scratch-d2", tmp_path / "ce-d2"], "only what is new"


def test_what_was_cut_off_goes_on_from_its_checkpoint(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(workplace, tmp_path / "whole")
    train_epoch = Trainer.train_epoch
    epochs: list[int] = []
    stop_after = 2

    def cut_off(self: Trainer) -> float:
        if len(epochs) == stop_after:
            self.save()
            raise KeyboardInterrupt
        epochs.append(self.progress.epoch)
        return train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(workplace, tmp_path / "cut")
    assert (tmp_path / "cut" / "scratch-d4" / STATE_FILE).exists()
    stop_after = -1
    train(workplace, tmp_path / "cut")
    assert epochs == [0, 1, 2, 3, 0, 1, 2, 3], "the first run's last two epochs, then the second run"
    one, two = (open_run(tmp_path / name / "scratch-d4") for name in ("whole", "cut"))
    assert (one.item_embeddings == two.item_embeddings).all()


def test_a_finished_run_of_other_settings_is_refused(workplace: Path, tmp_path: Path) -> None:
    train(workplace, tmp_path)
    other = Plan(methods=("scratch",), dims=(4,), training={**QUICK, "seed": 3})
    with pytest.raises(RunError, match=r"scratch-d4.config\.json: 'seed' was 0 and is now 3; give another --out"):
        train(workplace, tmp_path, other)


def test_another_process_trains_the_same_run(workplace: Path, tmp_path: Path) -> None:
    plan = Plan(methods=("ce",), dims=(4,), training=QUICK)
    (path,), (other,) = (train(workplace, tmp_path / str(processes), plan, processes) for processes in (2, 1))
    assert (open_run(path).item_embeddings == open_run(other).item_embeddings).all()
