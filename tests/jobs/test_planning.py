from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distill.run import open_run
from jobs.planning import Planner, look_ahead
from jobs.record.folder import JobFolder
from jobs.spec.reading import load_spec
from jobs.spec.sections import JobSpec
from tests.jobs.toy import write_job


def planner(spec: JobSpec) -> Planner:
    return Planner(spec, JobFolder(spec.folder))


def test_what_would_run_is_said_before_it_runs(job: Path) -> None:
    assert {says.partition(":")[0] for _, says in look_ahead(planner(load_spec(job / "job.toml")))} == {"reused"}
    write_job(job, ("dim = 16", "dim = 17"))
    said = dict(look_ahead(planner(load_spec(job / "job.toml"))))
    assert said["prepare"].startswith("reused: 60 users")
    assert said["teacher"] == "runs"
    assert said["distill"] == "depends on what teacher makes"


def test_a_training_that_goes_on_is_handed_the_run_that_was_published(job: Path) -> None:
    spec = load_spec(job / "job.toml")
    published = JobFolder(spec.folder).last_published()
    assert published is not None
    going_on = replace(spec, teacher=replace(spec.teacher, continued=True))
    teacher = planner(going_on).works[1]
    prepared = planner(going_on).results.find("prepare", published.step("prepare").key)
    assert prepared is not None

    unchanged = planner(going_on).plan(teacher, {"prepare": prepared.content})
    assert unchanged.result is not None  # nothing new to learn from: it is not trained again
    assert unchanged.key == published.step("teacher").key

    tomorrow = planner(going_on).plan(teacher, {"prepare": "of other data"})
    assert tomorrow.result is None
    assert tomorrow.continued is not None
    assert open_run(tomorrow.continued).dim == 16
    assert tomorrow.key != tomorrow.base == planner(spec).plan(planner(spec).works[1], {"prepare": "of other data"}).key
    again = planner(going_on).plan(teacher, {"prepare": "of other data"})
    assert again.key == tomorrow.key  # so that one that was cut off goes on


def test_without_a_run_that_was_published_training_starts_anew(tmp_path: Path) -> None:
    spec = load_spec(write_job(tmp_path))
    going_on = replace(spec, teacher=replace(spec.teacher, continued=True))
    planned = planner(going_on).plan(planner(going_on).works[1], {"prepare": "x"})
    assert (planned.continued, planned.key) == (None, planned.base)
