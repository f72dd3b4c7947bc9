from __future__ import annotations

import json
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from jobs.errors import JobLocked, UnknownJob
from jobs.record.folder import JobFolder
from jobs.record.log import RunLog
from jobs.record.state import GateRow, RunState, now, read_state, write_state
from tests.kits.liveness import assert_ends


def hold(folder: Path, end: Connection) -> None:
    with JobFolder(folder).locked():
        end.send(os.getpid())
        end.recv()


def test_the_lock_says_who_holds_it_and_ends_with_its_process(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job")
    assert not folder.is_locked()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(folder.path, theirs))
    process.start()
    pid = ours.recv()
    assert folder.is_locked()
    with (
        pytest.raises(JobLocked, match=rf"is run by process {pid} on \S+ since \S+; wait until it ends"),
        folder.locked(),
    ):
        pass
    assert process.pid == pid
    os.kill(pid, signal.SIGKILL)
    process.join()
    assert_ends(pid)
    assert not folder.is_locked()
    with folder.locked():
        assert folder.is_locked()


def test_runs_of_one_second_have_names_of_their_own_and_an_order(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    made = []
    for _ in range(3):
        path = folder.new_run()
        write_state(path, RunState("toy", path.name, "job.toml", now()))
        made.append(path.name)
    assert folder.runs() == made[::-1]
    latest = folder.latest()
    assert latest is not None
    assert latest.run == made[-1] == read_state(tmp_path / "latest").run


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = RunState("toy", "r", "job.toml", now(), gate=[GateRow("p99_ms", 1.5, 20.0, passed=True, look="fine")])
    state.step("teacher").says = "d 16"
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"format": 1, "steps": [{}]}'])
def test_a_state_that_cannot_be_read_is_told_and_passed_over(tmp_path: Path, content: str) -> None:
    folder = JobFolder(tmp_path)
    path = folder.new_run()
    (path / "state.json").write_text(content)
    with pytest.raises(UnknownJob, match=r"state\.json: unreadable"):
        read_state(path)
    assert folder.latest() is None
    with pytest.raises(UnknownJob, match=r"no state\.json in it"):
        read_state(tmp_path)


def test_old_runs_and_what_nobody_needs_go(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    for number, outcome in enumerate(["published", "published", "held", "failed", "nothing-to-do"]):
        state = RunState("toy", f"2026010{number}T000000Z", "job.toml", now(), outcome=outcome)
        state.step("teacher").key = str(number) * 64
        state.published = {"model": "toy", "version": str(number)} if outcome == "published" else None
        (folder.steps / f"teacher-{state.step('teacher').key[:16]}").mkdir(parents=True)
        write_state(folder.run_folder(state.run), state)
    folder.clean(keep_runs=2, served={"0"}, made={f"teacher-{16 * '4'}"})
    assert [run[7] for run in folder.runs()] == ["4", "3", "1", "0"]  # two, the last that published, what is served
    assert {path.name for path in folder.steps.iterdir()} == {f"teacher-{16 * number}" for number in "014"}


def test_the_log_has_a_whole_line_for_each_event(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path)
    log.write("progress", 'two\nlines, "quoted"')
    RunLog(tmp_path, shown=False).write("step-ended", "done", {"step": "teacher"})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["says"] for line in lines] == ['two\nlines, "quoted"', "done"]
    assert lines[1]["step"] == "teacher"
    assert capfd.readouterr().err == 'two\nlines, "quoted"\n'
