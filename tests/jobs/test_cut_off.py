"""Killed with -9 in each step, and between them, a job goes on and publishes what it would have published."""

from __future__ import annotations

from pathlib import Path

from export.bundle import ModelRepository, open_manifest
from jobs.record.folder import JobFolder
from jobs.record.state import STEPS
from tests.jobs.cutting import cut_off
from tests.jobs.toy import write_job

POINTS = [
    "prepare:running", "prepare:done", "teacher:running", "teacher@1", "teacher@3", "teacher:done", "distill:running",
    "distill@2", "distill:done", "export:running", "export:done", "gate:running", "gate:done", "publish:running",
    "publish:done", "label:running", "label:done", "metrics:running",
]  # fmt: skip
"""Up to the last one, the run has not said how it ends."""


def test_killed_everywhere_a_job_ends_as_one_that_was_not(tmp_path: Path, finished_job: Path) -> None:
    spec = write_job(tmp_path)
    lines = cut_off(spec, POINTS)
    assert [line.get("cut") for line in lines] == [*POINTS, None]
    assert {name.partition(":")[0].partition("@")[0] for name in POINTS} == set(STEPS)
    before = [line["state"] for line in lines[:-1]]
    assert {state["run"] for state in before} == {before[0]["run"]}  # one run, in many sittings
    assert [state["outcome"] for state in before] == [*["running"] * (len(POINTS) - 1), "published"]

    repository = ModelRepository(tmp_path / "models")
    assert repository.versions("toy") == ["1"]
    assert repository.labels("toy") == {"stable": "1"}
    straight = open_manifest(ModelRepository(finished_job / "models").resolve("toy"))
    found = open_manifest(repository.resolve("toy"))
    assert found.files == straight.files
    assert found.quality == straight.quality

    assert lines[-1]["state"]["outcome"] == "nothing-to-do"
    folder = JobFolder(tmp_path / "jobs" / "toy")
    published = folder.last_published()
    assert published is not None
    assert [step.reused for step in published.steps if step.name != "publish"] == [False] * (len(STEPS) - 1)
    assert published.step("metrics").says == "cut off"
    assert (folder.run_folder(published.run) / "report.html").is_file()
    assert not list(tmp_path.rglob("*.draft*"))
