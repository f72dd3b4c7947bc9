"""Trials in real processes: what they leave, and what is left when they or their sweep die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from distill.training.sweep.trials import Outcome, Trial, Workers

from distill.data.interactions import Interactions, load_interactions, save_interactions
from distill.run import open_run
from distill.training.job import Job, run_job
from distill.training.trainer import TrainingOptions
from tests.kits.liveness import assert_ends, is_alive, needs_proc

QUICK = TrainingOptions(epochs=2, eval_every=1, patience=2, batch_size=64)
ENDLESS = TrainingOptions(epochs=10**9, eval_every=10**9, patience=10**9, batch_size=64)


@pytest.fixture
def data(tmp_path: Path, checkerboard: Interactions) -> Path:
    save_interactions(checkerboard, tmp_path / "data")
    return tmp_path / "data"


def wait_for_all(workers: Workers) -> dict[int, Outcome]:
    ended: dict[int, Outcome] = {}
    while workers.busy:
        ended |= {outcome.trial.number: outcome for outcome in workers.wait()}
    return ended


def test_trials_side_by_side_are_the_runs_they_would_be_alone(data: Path, tmp_path: Path) -> None:
    job = Job(dim=3, options=QUICK)
    with Workers(2) as workers:
        workers.start(Trial(0, job, data, None, tmp_path / "0"))
        full = [workers.full]
        workers.start(Trial(1, job, data, tmp_path / "nothing", tmp_path / "1"))
        assert [*full, workers.full] == [False, True]
        ended = wait_for_all(workers)
    assert (ended[0].error, ended[0].killed) == (None, False)
    assert "nothing: no finished run there" in str(ended[1].error)
    run_job(job, load_interactions(data), tmp_path / "alone")
    np.testing.assert_array_equal(
        open_run(tmp_path / "0").item_embeddings, open_run(tmp_path / "alone").item_embeddings
    )


def test_a_process_that_dies_without_a_word_is_noticed(data: Path, tmp_path: Path) -> None:
    with Workers(1) as workers:
        workers.start(Trial(0, Job(dim=3, options=ENDLESS), data, None, tmp_path / "0"))
        ((_, process),) = workers._running.values()
        os.kill(process.pid or 0, signal.SIGKILL)
        (outcome,) = workers.wait()
    assert outcome.killed
    assert outcome.error == "its process ended with code -9"


def test_leaving_ends_what_still_runs(data: Path, tmp_path: Path) -> None:
    with Workers(1) as workers:
        workers.start(Trial(0, Job(dim=3, options=ENDLESS), data, None, tmp_path / "0"))
        ((_, process),) = workers._running.values()
    assert process.exitcode is not None


@needs_proc
def test_a_killed_sweep_leaves_no_training_behind(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from distill.job import Job\n"
        "from distill.sweep.trials import Trial, Workers\n"
        "from tests.distill.sweep.test_trials import ENDLESS\n"
        "workers = Workers(1)\n"
        "workers.start(Trial(0, Job(dim=3, options=ENDLESS), Path(sys.argv[1]), None, Path(sys.argv[2])))\n"
        "print(*(process.pid for _, process in workers._running.values()), flush=True)\n"
        "workers.wait()\n"
    )
    words = [sys.executable, "-c", code, str(data), str(tmp_path / "0")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4]) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    assert_ends(pid)
