from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve.console.jobs import MOST_BYTES, MOST_RUNS, read_jobs

STATE: dict[str, Any] = {
    "format": 1,
    "job": "nightly",
    "run": "20260102T000000Z",
    "started": "2026-01-02T00:00:00Z",
    "ended": "2026-01-02T00:10:00Z",
    "outcome": "held",
    "steps": [
        {"name": "gate", "key": "k", "outcome": "held", "started": "", "seconds": 2.5, "reused": False, "says": "x"}
    ],
    "gate": [{"check": "kept", "measured": 0.8, "bound": 0.9, "passed": False, "look": "metrics.json"}],
    "published": None,
    "error": None,
    "warnings": ["the Pushgateway did not answer"],
    "more": {"to": "come"},
}


def write(directory: Path, job: str, run: str, content: str | bytes) -> None:
    folder = directory / job / "runs" / run
    folder.mkdir(parents=True)
    (folder / "state.json").write_bytes(content if isinstance(content, bytes) else content.encode())


def test_runs_are_read_from_the_latest_on(tmp_path: Path) -> None:
    for day in range(1, MOST_RUNS + 5):
        write(tmp_path, "nightly", f"202601{day:02}T000000Z", json.dumps(STATE))
    (tmp_path / "no-job").mkdir()
    (found,) = read_jobs(tmp_path)
    assert found["job"] == "nightly"
    assert [each["run"] for each in read_jobs(tmp_path, 1)[0]["runs"]] == [found["runs"][0]["run"]]
    assert len(found["runs"]) == MOST_RUNS
    assert found["runs"][0]["run"] == "20260124T000000Z"
    assert found["runs"][0]["outcome"] == "held"
    assert found["runs"][0]["steps"][0] == {
        "name": "gate", "outcome": "held", "started": "", "seconds": 2.5, "reused": False, "says": "x"
    }  # fmt: skip
    assert found["runs"][0]["gate"] == STATE["gate"]
    assert found["runs"][0]["warnings"] == STATE["warnings"]
    assert "more" not in found["runs"][0]


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    write(tmp_path, "nightly", "1", json.dumps({**STATE, "outcome": "failed", "error": "teacher: out of memory"}))
    assert read_jobs(tmp_path)[0]["runs"][0]["says"] == "teacher: out of memory"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1, "steps": 3}',
        '{"format": 1, "gate": [1]}',
        '{"format": 1, "warnings": 3}',
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (MOST_BYTES + 1),
    ],
)
def test_a_torn_state_hides_no_other_run(tmp_path: Path, content: str | bytes) -> None:
    write(tmp_path, "nightly", "20260102T000000Z", content)
    write(tmp_path, "nightly", "20260101T000000Z", json.dumps(STATE))
    (found,) = read_jobs(tmp_path)
    torn, good = found["runs"]
    assert torn["outcome"] == "unreadable"
    assert torn["says"].startswith("state.json: ")
    assert good["outcome"] == "held"


def test_a_run_without_a_state_yet_and_a_directory_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "nightly" / "runs" / "20260101T000000Z").mkdir(parents=True)
    assert read_jobs(tmp_path)[0]["runs"][0]["outcome"] == "unreadable"
    assert read_jobs(tmp_path / "absent") == []


def test_what_is_no_word_or_number_becomes_text(tmp_path: Path) -> None:
    write(tmp_path, "nightly", "1", json.dumps({**STATE, "published": {"model": {"a": 1}, "version": "3"}}))
    assert read_jobs(tmp_path)[0]["runs"][0]["published"] == {"model": '{"a": 1}', "version": "3"}
