"""Trainings in real processes: what they leave, and what is left when they or their parent die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.interactions import Interactions, load_interactions, save_interactions
from distill.errors import NotFiniteError, RunError, SettingError
from distill.run import open_run
from distill.training.checkpoint import STATE_FILE
from distill.training.job import Job, build_job, run_job
from distill.training.runner import ChildFailed, Children, Outcome, Training, run_all, train_all
from distill.training.trainer import Trainer, TrainingOptions
from tests.kits.liveness import assert_ends, is_alive, needs_proc

ROOT = Path(__file__).parents[3]
QUICK = {"epochs": 4, "eval_every": 2, "patience": 4, "batch_size": 64, "dim": 3}
ENDLESS = TrainingOptions(epochs=10**9, eval_every=10**9, patience=10**9, batch_size=64)
JOBS = {"scratch": build_job("scratch", QUICK), "ce": build_job("ce", {**QUICK, "num_top": 5})}


@pytest.fixture
def data(tmp_path: Path, checkerboard: Interactions) -> Path:
    save_interactions(checkerboard, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def teacher(data: Path, tmp_path: Path) -> Path:
    run_job(build_job("scratch", {**QUICK, "dim": 6}), load_interactions(data), tmp_path / "teacher")
    return tmp_path / "teacher"


def wait_for_all(children: Children[int]) -> dict[int, Outcome[int]]:
    ended: dict[int, Outcome[int]] = {}
    while children.busy:
        ended |= {outcome.key: outcome for outcome in children.wait()}
    return ended


def test_trainings_side_by_side_are_the_runs_they_would_be_alone(data: Path, tmp_path: Path) -> None:
    job = JOBS["scratch"]
    with Children[int](2) as children:
        children.start(0, Training(job, data, tmp_path / "0"))
        full = [children.full]
        children.start(1, Training(job, data, tmp_path / "1", teacher=tmp_path / "nothing"))
        assert [*full, children.full] == [False, True]
        ended = wait_for_all(children)
    assert (ended[0].error, ended[0].status) == ("", "done")
    assert "nothing: no finished run there" in ended[1].error
    assert ended[1].status == "refused"
    run_job(job, load_interactions(data), tmp_path / "alone")
    np.testing.assert_array_equal(
        open_run(tmp_path / "0").item_embeddings, open_run(tmp_path / "alone").item_embeddings
    )


def test_a_process_that_dies_without_a_word_is_noticed(data: Path, tmp_path: Path) -> None:
    with Children[int](1) as children:
        children.start(0, Training(Job(dim=3, options=ENDLESS), data, tmp_path / "0"))
        os.kill(children.pids[0], signal.SIGKILL)
        (outcome,) = children.wait()
    assert outcome.status == "killed"
    assert outcome.error == "its process ended with code -9"


@needs_proc
def test_leaving_ends_what_still_runs(data: Path, tmp_path: Path) -> None:
    with Children[int](1) as children:
        children.start(0, Training(Job(dim=3, options=ENDLESS), data, tmp_path / "0"))
        pid = children.pids[0]
        assert is_alive(pid)
    assert not is_alive(pid)


@needs_proc
def test_a_killed_parent_leaves_no_training_behind(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from distill.training.job import Job\n"
        "from distill.training.runner import Children, Training\n"
        "from tests.distill.training.test_runner import ENDLESS\n"
        "children = Children(1)\n"
        "children.start(0, Training(Job(dim=3, options=ENDLESS), Path(sys.argv[1]), Path(sys.argv[2])))\n"
        "print(children.pids[0], flush=True)\n"
        "children.wait()\n"
    )
    words = [sys.executable, "-c", code, str(data), str(tmp_path / "0")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    assert_ends(pid)


@needs_proc
def test_a_child_that_computes_nothing_ends_with_the_parent_too() -> None:
    code = (
        "import time\n"
        "from functools import partial\n"
        "from distill.training.runner import Children\n"
        "children = Children(1)\n"
        "children.start('sleeper', partial(time.sleep, 600))\n"
        "print(children.pids['sleeper'], flush=True)\n"
        "children.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    assert_ends(pid)


def leave(path: Path) -> None:
    path.write_text(str(os.getpid()))


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise SettingError("alpha: 2 is outside [0, 1]")


def name_stderr(path: Path) -> None:
    path.write_text(type(sys.stderr).__name__)


def crash() -> None:
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(
    ("fate", "kind", "message"),
    [
        (kill_oneself, RunError, "^bad: its process ended with code -9, as where memory runs out; run it again to go"),
        (refuse, RunError, r"^alpha: 2 is outside \[0, 1\]$"),
        (crash, ChildFailed, r"(?s)^bad: Traceback.*ZeroDivisionError: by nothing"),
    ],
)
def test_what_fails_takes_nothing_with_it_and_is_told(tmp_path: Path, fate: Any, kind: Any, message: str) -> None:
    paths = [tmp_path / "first", tmp_path / "last"]
    work = {"first": partial(leave, paths[0]), "bad": fate, "last": partial(leave, paths[1])}
    with pytest.raises(kind, match=message):
        run_all(work, 2, title="toy", unit="piece")
    pids = [int(path.read_text()) for path in paths]
    assert len({*pids, os.getpid()}) == 3, "each in a process of its own"


@pytest.mark.parametrize("processes", [1, 2])
def test_only_one_child_at_a_time_shows_how_far_it_is(tmp_path: Path, processes: int) -> None:
    run_all({"only": partial(name_stderr, tmp_path / "stderr")}, processes, title="toy", unit="piece")
    assert ((tmp_path / "stderr").read_text() == "StringIO") == (processes > 1)


def test_a_child_starts_in_a_fraction_of_what_importing_torch_takes(tmp_path: Path) -> None:
    run_all({"warm": partial(leave, tmp_path / "warm")}, 1, title="toy", unit="piece")
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    alone = time.perf_counter() - started
    started = time.perf_counter()
    run_all({str(number): partial(leave, tmp_path / str(number)) for number in range(3)}, 1, title="toy", unit="piece")
    assert (time.perf_counter() - started) / 3 < alone / 2


def test_what_is_finished_is_not_trained_again(data: Path, teacher: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert [run.path for run in train_all(JOBS, data, runs, teacher)] == [runs / "scratch", runs / "ce"]
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    train_all(JOBS, data, runs, teacher, processes=2)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before
    more = {**JOBS, "smaller": build_job("ce", {**QUICK, "num_top": 5, "dim": 2})}
    assert [run.dim for run in train_all(more, data, runs, teacher)] == [3, 3, 2]
    after = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if "smaller" not in str(path)}
    assert after == before, "only what is new"


def test_what_was_cut_off_goes_on_from_its_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"run": JOBS["scratch"]}
    train_all(job, data, tmp_path / "whole")
    train_epoch = Trainer.train_epoch

    def cut_off(self: Trainer) -> float:
        if self.progress.epoch == 2:
            self.save()
            raise KeyboardInterrupt
        return train_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run_job(job["run"], load_interactions(data), tmp_path / "cut" / "run")
    state = json.loads((tmp_path / "cut" / "run" / STATE_FILE).read_text())
    assert state["progress"]["epoch"] == 2
    with pytest.raises(RunError, match="'seed' was 0 and is now 1; resume with the run's own settings"):
        train_all({"run": build_job("scratch", {**QUICK, "seed": 1})}, data, tmp_path / "cut")
    (cut,) = train_all(job, data, tmp_path / "cut")
    assert (cut.item_embeddings == open_run(tmp_path / "whole" / "run").item_embeddings).all()
    lines = (cut.path / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["2.0", "4.0"]
    seconds = lines[0].split(",").index("seconds")
    assert float(lines[1].split(",")[seconds]) == state["progress"]["history"][0]["seconds"], "trained once, not twice"


def test_a_finished_run_of_other_settings_is_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    train_all({"run": JOBS["ce"]}, data, tmp_path / "runs", teacher)
    other = {"run": build_job("ce", {**QUICK, "num_top": 5, "seed": 3})}
    with pytest.raises(RunError, match=r"run.config\.json: 'seed' was 0 and is now 3; give another --out"):
        train_all(other, data, tmp_path / "runs", teacher)
    teacher.rename(tmp_path / "moved")
    (run,) = train_all({"run": JOBS["ce"]}, data, tmp_path / "runs", tmp_path / "moved")
    assert run.config["teacher"] == str(teacher), "the same teacher elsewhere is the same"
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"unreadable run .*; delete it to train it again"):
        train_all({"run": JOBS["ce"]}, data, tmp_path / "runs", tmp_path / "moved")


def test_another_number_of_processes_trains_the_same_runs(data: Path, teacher: Path, tmp_path: Path) -> None:
    one, two = (train_all(JOBS, data, tmp_path / str(count), teacher, processes=count) for count in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert (first.item_embeddings == second.item_embeddings).all()


def test_a_training_that_diverges_is_left_out_where_that_is_asked_for(data: Path, tmp_path: Path) -> None:
    jobs = {"wild": build_job("scratch", {**QUICK, "learning_rate": 1e30}), "tame": JOBS["scratch"]}
    diverged: dict[str, str] = {}
    (run,) = train_all(jobs, data, tmp_path / "runs", diverged=diverged)
    assert (run.path.name, list(diverged)) == ("tame", ["wild"])
    assert "diverged in epoch" in diverged["wild"]
    with pytest.raises(NotFiniteError, match="diverged in epoch"):
        train_all(jobs, data, tmp_path / "runs")
