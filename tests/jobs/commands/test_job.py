"""The commands: what they print, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lowpass
from jobs.record.folder import JobFolder
from jobs.record.state import RUNNING, write_state
from tests.jobs.toy import write_job


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = lowpass.main(["job", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def read(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    code, out, _ = ask(capsys, *words, "--json")
    assert code == 0
    return json.loads(out)


def test_nothing_to_do_exits_with_0_and_held_with_3(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ask(capsys, "run", job / "job.toml")
    assert code == 0
    assert "nothing-to-do" in out
    assert "2/8 teacher  reused: d 16" in err
    write_job(job, ("kept_ndcg = 0.5", "kept_ndcg = 100"), ("dim = 8", "dim = 7"))
    code, out, err = ask(capsys, "run", job / "job.toml")
    assert code == 3
    assert "HELD" in out
    assert "held by kept_ndcg" in err
    code, out, _ = ask(capsys, "run", job / "job.toml", "--json")
    assert (code, json.loads(out)["outcome"]) == (3, "held")


def test_faults_exit_with_2_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write_job(tmp_path, ("dim = 8", "dim = 0"), ("dim = 16", "dim = 0"))
    for more in ([], ["--check"]):
        code, out, err = ask(capsys, "run", spec, *more)
        assert (code, out) == (2, "")
        assert [line.partition("job.toml: ")[2][:11] for line in err.splitlines()] == ["teacher.dim", "student.dim"]
    assert not (tmp_path / "jobs").exists()


def test_data_that_are_wrong_exit_with_2_and_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write_job(tmp_path)
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu1\n")
    code, _, err = ask(capsys, "run", spec)
    assert code == 2
    assert "interactions.csv" in err.splitlines()[-1]
    assert read(capsys, "show", spec)["outcome"] == "failed"


def test_a_job_that_runs_exits_with_2(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with JobFolder(job / "jobs" / "toy").locked():
        code, _, err = ask(capsys, "run", job / "job.toml")
        assert code == 2
        assert "is run by process" in err
        (found,) = read(capsys, "status", job / "jobs")["jobs"]
        assert found["is_running"]


def test_check_says_what_would_run(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_job(job, ("dim = 8", "dim = 7"))
    steps = {each["step"]: each["would"] for each in read(capsys, "run", job / "job.toml", "--check")["steps"]}
    assert steps["teacher"].startswith("reused")
    assert (steps["distill"], steps["export"]) == ("runs", "depends on what distill makes")
    assert len(JobFolder(job / "jobs" / "toy").runs()) == 1
    assert "job.toml: no fault" in ask(capsys, "run", job / "job.toml", "--check")[1]


def test_a_job_is_shown_by_its_spec_its_folder_and_its_run(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = JobFolder(job / "jobs" / "toy")
    (run,) = folder.runs()
    for words in ([job / "job.toml"], [folder.path], [folder.run_folder(run)], [folder.path, "--run", run]):
        assert read(capsys, "show", *words)["run"] == run
    out = ask(capsys, "show", folder.path)[1]
    assert "published toy version 1" in out
    assert "| kept_ndcg" in out
    assert ask(capsys, "show", folder.path, "--run", "x")[0] == 2
    assert ask(capsys, "show", job / "models")[0] == 2


def test_status_says_where_a_job_stands(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = JobFolder(job / "jobs" / "toy")
    assert "nobody runs it" in ask(capsys, "status", job / "job.toml")[1]
    state = folder.latest()
    assert state is not None
    state.outcome = state.step("distill").outcome = RUNNING
    write_state(folder.run_folder(state.run), state)
    assert "the run was cut off in step distill; 'lowpass job run' goes on" in ask(capsys, "status", folder.path)[1]
    with folder.locked():
        out = ask(capsys, "status", folder.path)[1]
    assert "step distill for" in out
    (job / "jobs" / "other" / "runs").mkdir(parents=True)
    assert ask(capsys, "status", job / "jobs" / "other")[0] == 2


def test_resume_goes_on_with_what_was_cut_off_and_with_nothing_else(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = JobFolder(job / "jobs" / "toy")
    code, _, err = ask(capsys, "resume", folder.path)
    assert code == 2
    assert "the last run ended: published" in err
    write_job(
        job, ("dim = 8", "dim = 7"), ("kept_ndcg = 0.5", 'kept_ndcg = "off"'), ("kept_recall = 0.5", "kept_recall = 0")
    )
    state = folder.latest()
    assert state is not None
    state.outcome, state.published, state.spec = RUNNING, None, str(job / "job.toml")
    write_state(folder.run_folder(state.run), state)
    code, out, _ = ask(capsys, "resume", folder.path, "--json")
    assert code == 0
    assert (json.loads(out)["run"], json.loads(out)["published"]) == (state.run, {"model": "toy", "version": "2"})
