"""A job that publishes into an object store, a real one: once, whatever ends it, and held against what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.bundle import Repository, StoreError, open_bundle, open_manifest, open_repository
from jobs.record.folder import JobFolder
from tests.jobs.cutting import cut_off
from tests.jobs.toy import run, write_interactions, write_job
from tests.kits.seaweedfs import SECRET

POINTS = ["publish:running", "upload", "publish:done", "label:running", "label:done"]


def write_remote_job(folder: Path, bucket: str) -> Path:
    return write_job(folder, ('repository = "models"', f'repository = "{bucket}"'))


@pytest.fixture
def reader(bucket: str, tmp_path: Path) -> Repository:
    """The repository as a server on another machine sees it."""
    return open_repository(bucket, mirror=tmp_path / "reader")


def test_killed_around_publish_a_job_publishes_once(bucket: str, reader: Repository, tmp_path: Path) -> None:
    spec = write_remote_job(tmp_path / "job", bucket)
    *cuts, last = cut_off(spec, POINTS)
    assert [line["cut"] for line in cuts] == POINTS
    # The number of the upload that was killed stays taken for a day; what is there of it is no version.
    assert (reader.versions("toy"), reader.labels("toy")) == (["2"], {"stable": "2"})
    assert last["state"]["published"] == {"model": "toy", "version": "2"}
    assert last["state"]["candidate"] == f"{bucket}/toy/2"
    bundle = open_bundle(reader.resolve("toy"), verify=True)
    assert len(bundle.recommend("u1")) == 10

    again = run(spec)
    assert again.outcome == "nothing-to-do"
    assert reader.versions("toy") == ["2"]
    folder = JobFolder(tmp_path / "job" / "jobs" / "toy")
    told = json.dumps([state.to_dict() for state in folder.states()])
    assert SECRET not in told
    assert SECRET not in (folder.run_folder(again.run) / "log.jsonl").read_text()


def test_the_next_day_is_held_against_what_the_store_has(bucket: str, reader: Repository, tmp_path: Path) -> None:
    spec = write_remote_job(tmp_path / "job", bucket)
    assert run(spec).published == {"model": "toy", "version": "1"}
    first = open_manifest(reader.resolve("toy")).bundle_id
    mirror = tmp_path / "job" / "jobs" / "toy" / "mirror"
    mirror.rename(tmp_path / "gone")  # as on another machine: what is labelled is brought
    write_interactions(tmp_path / "job" / "interactions.csv", users=64, taken=14)
    state = run(spec)
    assert state.published == {"model": "toy", "version": "2"}
    assert reader.labels("toy") == {"stable": "2", "previous": "1"}
    assert "of version 1" in next(row.look for row in state.gate if row.check == "worse_than_stable")
    assert open_manifest(mirror / "toy" / "1").bundle_id == first
    assert open_bundle(mirror / "toy" / "2", verify=True).manifest == open_manifest(reader.resolve("toy"))

    reader.rollback("toy")
    assert run(spec).outcome == "nothing-to-do"
    assert reader.labels("toy") == {"stable": "1", "previous": "2"}


def test_a_store_that_is_away_is_told_and_the_job_goes_on_later(
    bucket: str, reader: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_remote_job(tmp_path / "job", bucket)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY"):
            run(spec)
    state = run(spec)
    assert state.published == {"model": "toy", "version": "1"}
    assert {step.name for step in state.steps if step.reused} == {"prepare", "teacher", "distill", "export"}
    assert reader.labels("toy") == {"stable": "1"}
