"""A job on invented data: what each run does, does again, does not do, and leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import jobs.runner
from export.bundle import ModelRepository, open_bundle
from jobs.errors import JobLocked, NothingToResume
from jobs.gate.checks import judge
from jobs.record.folder import JobFolder
from jobs.record.state import RunState, read_state
from jobs.runner import run_job
from jobs.spec.reading import load_spec
from jobs.spec.sections import GateSpec
from tests.jobs.toy import SPEC, run, write_interactions, write_job

MADE = ("prepare", "teacher", "distill", "export")


def reused(state: RunState) -> set[str]:
    return {step.name for step in state.steps if step.reused}


def labels(folder: Path) -> dict[str, str]:
    return ModelRepository(folder / "models").labels("toy")


def test_a_run_publishes_a_bundle_that_answers_and_says_what_it_did(finished_job: Path) -> None:
    folder = JobFolder(finished_job / "jobs" / "toy")
    state = folder.latest()
    assert state is not None
    assert (state.outcome, state.published) == ("published", {"model": "toy", "version": "1"})
    assert labels(finished_job) == {"stable": "1"}
    assert len(open_bundle(ModelRepository(finished_job / "models").resolve("toy")).recommend("u1")) == 10
    assert {step.outcome for step in state.steps} == {"done"}
    assert not reused(state)
    assert all(step.key for step in state.steps if step.name != "metrics")
    assert [(row.check, row.passed) for row in state.gate] == [(field.name, True) for field in fields(GateSpec)]
    log = [json.loads(line) for line in (folder.run_folder(state.run) / "log.jsonl").read_text().splitlines()]
    assert (log[0]["event"], log[-1]["event"]) == ("run-started", "step-ended")
    assert (folder.path / "latest").readlink() == Path("runs") / state.run


def test_nothing_is_done_where_nothing_changed(job: Path) -> None:
    before = (job / "models/toy/1/manifest.json").stat().st_mtime_ns
    state = run(job / "job.toml")
    assert state.outcome == "nothing-to-do"
    assert reused(state) == set(MADE)
    assert {state.step(name).outcome for name in ("gate", "publish", "label")} == {"skipped"}
    assert (job / "models/toy/1/manifest.json").stat().st_mtime_ns == before
    assert labels(job) == {"stable": "1"}


def test_only_what_depends_on_a_change_is_done_again(job: Path) -> None:
    write_job(job, ("dim = 8", "dim = 9"))
    state = run(job / "job.toml")
    assert (state.outcome, state.published) == ("published", {"model": "toy", "version": "2"})
    assert reused(state) == {"prepare", "teacher"}
    assert labels(job) == {"stable": "2", "previous": "1"}


def test_the_same_interactions_in_another_file_train_nothing(job: Path) -> None:
    source = job / "interactions.csv"
    source.write_text(source.read_text() + "\n\n")
    state = run(job / "job.toml")
    assert state.outcome == "nothing-to-do"
    assert reused(state) == {"teacher", "distill", "export"}


def test_the_next_days_interactions_become_the_next_version_measured_against_the_last(job: Path) -> None:
    write_interactions(job / "interactions.csv", users=64, taken=14)
    state = run(job / "job.toml")
    found = {row.check: row for row in state.gate}
    assert state.published == {"model": "toy", "version": "2"}
    assert found["lost_users"].measured == found["lost_items"].measured == 0
    assert found["worse_than_stable"].measured is not None
    assert "of version 1" in found["worse_than_stable"].look


def test_a_bad_student_is_held_and_the_labels_stay(job: Path) -> None:
    write_job(job, ("dim = 8\nepochs = 4", "dim = 1\nepochs = 2"), ("kept_ndcg = 0.5", "kept_ndcg = 0.95"))
    state = run(job / "job.toml")
    assert (state.outcome, state.published, state.step("gate").outcome) == ("held", None, "held")
    held = {row.check: row for row in state.gate if not row.passed}
    assert "kept_ndcg" in held
    assert held["kept_ndcg"].measured is not None
    assert held["kept_ndcg"].measured < 0.95
    assert "look at" in held["kept_ndcg"].look
    assert labels(job) == {"stable": "1"}
    assert ModelRepository(job / "models").versions("toy") == ["1"]
    assert state.candidate is not None
    assert open_bundle(state.candidate).manifest.model.dim == 1  # to be looked at

    again = run(job / "job.toml")
    assert (again.outcome, reused(again)) == ("held", set(MADE))  # measured again, made of what is there

    accepted = [(f"{name} = 0.5", f'{name} = "off"') for name in ("kept_ndcg", "kept_recall")]
    text = ("dim = 8\nepochs = 4", "dim = 1\nepochs = 2")
    write_job(job, text, *accepted)
    state = run(job / "job.toml")
    assert (state.outcome, reused(state)) == ("published", set(MADE))
    assert labels(job) == {"stable": "2", "previous": "1"}


def test_a_rollback_by_hand_is_not_undone_by_the_same_data(job: Path) -> None:
    write_interactions(job / "interactions.csv", taken=14)
    assert run(job / "job.toml").published == {"model": "toy", "version": "2"}
    ModelRepository(job / "models").rollback("toy")
    assert run(job / "job.toml").outcome == "nothing-to-do"
    assert labels(job) == {"stable": "1", "previous": "2"}


def test_a_canary_is_measured_against_what_is_stable(job: Path) -> None:
    write_job(job, ("dim = 8", "dim = 9"), ('repository = "models"', 'repository = "models"\nlabel = "canary"'))
    state = run(job / "job.toml")
    assert (state.outcome, labels(job)) == ("published", {"stable": "1", "canary": "2"})
    assert "of version 1" in next(row.look for row in state.gate if row.check == "worse_than_stable")


def test_a_version_that_was_removed_is_made_again(job: Path) -> None:
    shutil.rmtree(job / "models")
    state = run(job / "job.toml")
    assert (state.outcome, reused(state)) == ("published", {"prepare", "teacher", "distill", "gate"})
    assert labels(job) == {"stable": "1"}


def test_a_failure_is_told_and_resumed(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_interactions(job / "interactions.csv", taken=14)

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(jobs.runner, "judge", fail)
        with pytest.raises(OSError, match="the disk is full"):
            run(job / "job.toml")
    folder = JobFolder(job / "jobs" / "toy")
    state = folder.latest()
    assert state is not None
    assert (state.outcome, state.error, state.step("gate").outcome) == ("failed", "OSError: the disk is full", "failed")
    assert {state.step(name).outcome for name in ("publish", "label")} == {"skipped"}
    assert labels(job) == {"stable": "1"}

    resumed = run_job(load_spec(job / "job.toml"), shown=False, must_resume=True)
    assert (resumed.run, resumed.outcome) == (state.run, "published")
    assert not reused(resumed)  # this run did it all, if in two sittings
    with pytest.raises(NothingToResume, match="ended: published"):
        run_job(load_spec(job / "job.toml"), shown=False, must_resume=True)


def test_sigterm_ends_a_run_which_says_so(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_interactions(job / "interactions.csv", taken=14)

    def wait(*_: object, **__: object) -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        threading.Event().wait(30)

    monkeypatch.setattr(jobs.runner, "judge", wait)
    with pytest.raises(KeyboardInterrupt):
        run(job / "job.toml")
    state = JobFolder(job / "jobs" / "toy").latest()
    assert state is not None
    assert (state.outcome, state.error) == ("failed", "stopped")


def test_a_second_run_is_told_who_runs_the_job(job: Path) -> None:
    folder = JobFolder(job / "jobs" / "toy")
    with folder.locked(), pytest.raises(JobLocked, match=f"is run by process {os.getpid()} on "):
        run(job / "job.toml")
    assert len(folder.runs()) == 1
    assert run(job / "job.toml").outcome == "nothing-to-do"


def test_what_cannot_be_told_is_a_warning(job: Path) -> None:
    write_job(job, ("dim = 8", "dim = 9"), more='[metrics]\npushgateway = "http://127.0.0.1:1"\n')
    state = run(job / "job.toml")
    assert state.outcome == "published"
    assert [warning.partition(":")[0] for warning in state.warnings] == ["metrics.pushgateway"]


def test_old_runs_go_and_what_is_served_stays(job: Path) -> None:
    write_job(job, ('name = "toy"', 'name = "toy"\nkeep_runs = 2'))
    folder = JobFolder(job / "jobs" / "toy")
    first = folder.runs()[0]
    for _ in range(3):
        run(job / "job.toml")
    assert len(folder.runs()) == 3
    assert first in folder.runs()  # it published what is served
    kept = {path.name.partition("-")[0] for path in folder.steps.iterdir()}
    assert kept == {*MADE, "gate"}

    write_job(job, ('name = "toy"', 'name = "toy"\nkeep_runs = 2'), ("dim = 8", "dim = 9"))
    run(job / "job.toml")
    write_job(job, ('name = "toy"', 'name = "toy"\nkeep_runs = 2'), ("dim = 8", "dim = 10"))
    run(job / "job.toml")
    students = [path for path in folder.steps.iterdir() if path.name.startswith("distill")]
    assert len(students) == 2  # of 'stable' and of 'previous'
    assert first not in folder.runs()


def test_a_teacher_is_imported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(4, 6)).astype(np.float32)
    np.save(tmp_path / "users.npy", taste[np.arange(60) % 4])
    np.save(tmp_path / "items.npy", taste[np.arange(60) % 4])
    for side in "ui":
        (tmp_path / f"{side}.txt").write_text("".join(f"{side}{row}\n" for row in range(60)))
    files = {"users": "users.npy", "items": "items.npy", "users_ids": "u.txt", "items_ids": "i.txt"}
    section = "".join(f'{name} = "{file}"\n' for name, file in files.items())
    text = SPEC[: SPEC.index("[teacher]")] + "[teacher.import]\n" + section + SPEC[SPEC.index("[student]") :]
    spec = write_job(tmp_path)
    spec.write_text(text)
    state = run(spec)
    assert state.outcome == "published"
    assert state.step("teacher").says.startswith("d 6, test")
    assert run(spec).outcome == "nothing-to-do"
    np.save(tmp_path / "users.npy", -taste[np.arange(60) % 4])
    assert "teacher" not in reused(run(spec))


def test_states_can_be_read_while_a_run_goes_on(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_interactions(job / "interactions.csv", taken=14)
    seen = []
    folder = JobFolder(job / "jobs" / "toy")

    def look(*arguments: object, **settings: object) -> object:
        seen.append(read_state(folder.path / "latest"))
        return judge(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs.runner, "judge", look)
    run(job / "job.toml")
    assert (seen[0].outcome, seen[0].current and seen[0].current.name) == ("running", "gate")
    assert seen[0].step("export").outcome == "done"
