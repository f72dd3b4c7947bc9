"""A job that goes on: the second day starts from what the first one published, row by row."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from distill.run import ID_FILES, Run, match_ids, open_run, read_ids
from export.bundle import ModelRepository
from jobs.planning import Planner, look_ahead
from jobs.record.folder import JobFolder, step_folder
from jobs.record.state import RunState
from jobs.spec.reading import load_spec
from tests.jobs.cutting import cut_off
from tests.jobs.toy import SPEC, run, write_interactions, write_job

CONTINUE = (
    ("dim = 16", "dim = 16\ncontinue = true"),
    ("dim = 8", 'dim = 8\nstart = "svd"\ncontinue = true'),
)


@pytest.fixture(scope="module")
def first_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that is to go on, after its first run. Not to be changed."""
    folder = tmp_path_factory.mktemp("continuing")
    assert run(write_job(folder, *CONTINUE)).outcome == "published"
    return folder


@pytest.fixture
def second_day(first_day: Path, tmp_path: Path) -> Path:
    """The morning after: four new users, and two items more for each."""
    folder = tmp_path / "job"
    shutil.copytree(first_day, folder, symlinks=True)
    write_interactions(folder / "interactions.csv", users=64, taken=14)
    return folder


def trained(folder: Path, state: RunState, step: str) -> Run:
    name = {"teacher": "teacher", "distill": "student"}[step]
    return open_run(folder / "jobs" / "toy" / "steps" / step_folder(step, state.step(step).key) / name)


def states(folder: Path) -> list[RunState]:
    return list(JobFolder(folder / "jobs" / "toy").states())


def test_the_first_run_trains_from_nothing_and_keeps_what_the_next_one_needs(first_day: Path) -> None:
    (state,) = states(first_day)
    for step in ("teacher", "distill"):
        found = trained(first_day, state, step)
        assert "continued" not in found.metrics
        assert "continue_from" not in found.config
        assert {(found.path / name).is_file() for name in ID_FILES.values()} == {True}
    assert trained(first_day, state, "distill").config["start"] == "svd"


def test_the_second_day_goes_on_from_what_was_published(second_day: Path) -> None:
    still = "learning_rate = 1e-9"  # all that is left of a training is where it started
    write_job(second_day, *CONTINUE, ("learning_rate = 0.05", still), ("dim = 8", f"dim = 8\n{still}"))
    (before,) = states(second_day)
    state = run(second_day / "job.toml")
    assert (state.outcome, state.published) == ("published", {"model": "toy", "version": "2"})
    for step in ("teacher", "distill"):
        require_kept_rows(trained(second_day, before, step), trained(second_day, state, step))
        assert "goes on with 60 users and 60 items, 4 and 0 new" in state.step(step).says
    assert run(second_day / "job.toml").outcome == "nothing-to-do"


def require_kept_rows(old: Run, new: Run) -> None:
    assert new.config["continue_from"] == str(old.path)
    assert {name: new.metrics["continued"][name] for name in ("users_kept", "users_new")} == {
        "users_kept": 60, "users_new": 4,
    }  # fmt: skip
    for side, ids_before, ids_now in zip(("user", "item"), read_ids(old), read_ids(new), strict=True):
        rows = match_ids(ids_before, ids_now)
        kept = rows >= 0
        vectors = [getattr(one, f"{side}_embeddings") for one in (old, new)]
        np.testing.assert_allclose(vectors[1][kept], vectors[0][rows[kept]], atol=1e-5)
        assert np.linalg.norm(vectors[1][~kept], axis=1).all()


def test_killed_while_it_goes_on_it_ends_as_one_that_was_not(second_day: Path, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    shutil.copytree(second_day, straight, symlinks=True)
    expected = run(straight / "job.toml")
    points = ["teacher:running", "teacher@2", "teacher:done", "distill@2", "distill:done"]
    *cuts, last = cut_off(second_day / "job.toml", points)
    assert [line["cut"] for line in cuts] == points
    assert last["state"]["outcome"] == expected.outcome == "published"
    found = states(second_day)[0]
    for step in ("teacher", "distill"):
        resumed, whole = (trained(folder, state, step) for folder, state in ((second_day, found), (straight, expected)))
        assert resumed.metrics["continued"]["users_kept"] == 60
        np.testing.assert_array_equal(resumed.user_embeddings, whole.user_embeddings)
        np.testing.assert_array_equal(resumed.item_embeddings, whole.item_embeddings)


def test_what_was_held_is_not_gone_on_from(second_day: Path) -> None:
    (first,) = states(second_day)
    write_job(second_day, *CONTINUE, ("kept_ndcg = 0.5", "kept_ndcg = 1e9"))
    assert run(second_day / "job.toml").outcome == "held"
    write_interactions(second_day / "interactions.csv", users=64, taken=15)
    state = run(write_job(second_day, *CONTINUE))
    assert trained(second_day, state, "distill").config["continue_from"] == str(
        trained(second_day, first, "distill").path
    )


def test_after_a_rollback_it_goes_on_from_what_is_labelled(second_day: Path) -> None:
    (first,) = states(second_day)
    spec = second_day / "job.toml"
    assert run(spec).published == {"model": "toy", "version": "2"}
    ModelRepository(second_day / "models").rollback("toy")
    assert run(spec).outcome == "nothing-to-do"  # of the second day's data, and of the first day's
    write_interactions(second_day / "interactions.csv")
    assert run(spec).outcome == "nothing-to-do"
    write_interactions(second_day / "interactions.csv", users=64, taken=15)
    state = run(spec)
    for step in ("teacher", "distill"):
        assert trained(second_day, state, step).config["continue_from"] == str(trained(second_day, first, step).path)


def test_a_run_of_another_kind_is_not_gone_on_from_and_that_is_said(second_day: Path) -> None:
    write_job(second_day, *CONTINUE, ("dim = 16", "dim = 17"))
    state = run(second_day / "job.toml")
    assert state.outcome == "published"
    assert "continued" not in trained(second_day, state, "teacher").metrics
    assert "continued" in trained(second_day, state, "distill").metrics
    log = (JobFolder(second_day / "jobs" / "toy").run_folder(state.run) / "log.jsonl").read_text()
    assert "its dim is 16 and not 17" in log
    write_job(second_day, *CONTINUE, ("dim = 16", "dim = 18"))
    spec = load_spec(second_day / "job.toml")
    said = dict(look_ahead(Planner(spec, JobFolder(spec.folder))))
    assert "from nothing: it cannot go on from" in said["teacher"]


def test_a_random_split_is_warned_of(tmp_path: Path) -> None:
    split = ('split = "ordered"', 'split = "random"')
    run(write_job(tmp_path, *CONTINUE, split))
    write_interactions(tmp_path / "interactions.csv", taken=14)
    state = run(write_job(tmp_path, *CONTINUE, split))
    log = (JobFolder(tmp_path / "jobs" / "toy").run_folder(state.run) / "log.jsonl").read_text()
    assert "warning: the data is split at random" in log


def test_the_settings_of_a_first_run_are_those_of_a_spec_that_does_not_go_on(tmp_path: Path) -> None:
    assert "continue" not in SPEC
    plain, going_on = load_spec(write_job(tmp_path / "a")), load_spec(write_job(tmp_path / "b", *CONTINUE[:1]))
    assert plain.teacher.build() == going_on.teacher.build()
    given = going_on.student.build({"continue_from": tmp_path})
    assert (given.continue_from, given.start) == (tmp_path, "random")
