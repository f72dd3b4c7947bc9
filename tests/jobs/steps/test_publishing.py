from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import jobs.steps.publishing
from export.bundle import ModelRepository, find_bundle, open_bundle, open_manifest
from jobs.steps.publishing import find_labelled, find_version, publish


@pytest.fixture
def staged(finished_job: Path, tmp_path: Path) -> Path:
    path = tmp_path / "staged" / "other" / "1"
    shutil.copytree(find_bundle("toy", finished_job / "models"), path)
    return path


@pytest.fixture(params=["renamed", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "copied":
        monkeypatch.setattr(jobs.steps.publishing, "on_one_disk", lambda one, other: False)
    return str(request.param)


def test_a_bundle_becomes_the_next_version_whole_and_without_a_label(staged: Path, tmp_path: Path, way: str) -> None:
    repository = ModelRepository(tmp_path / "models")
    again = tmp_path / "again"
    shutil.copytree(staged, again)
    first, second = publish(staged, repository, "shop"), publish(again, repository, "shop")
    assert [first.name, second.name] == repository.versions("shop") == ["1", "2"]
    for version in (first, second):
        card = open_bundle(version, verify=True).manifest.model
        assert (card.name, card.version) == ("shop", version.name)
    assert repository.labels("shop") == {}
    assert staged.exists() == (way == "copied")
    assert not [path for path in (tmp_path / "models" / "shop").iterdir() if path.name.startswith(".")]
    assert find_version(repository, "shop", open_manifest(first).bundle_id) == second


def test_a_number_that_others_took_meanwhile_is_passed_over(
    staged: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = ModelRepository(tmp_path / "models")
    reserve, given = repository.reserve, iter(["1", ""])
    shutil.copytree(staged, tmp_path / "models" / "shop" / "1")

    def reserve_late(model: str) -> Path:
        version = next(given)
        return tmp_path / "models" / model / version if version else reserve(model)

    monkeypatch.setattr(repository, "reserve", reserve_late)
    assert publish(staged, repository, "shop").name == "2"


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models")
    assert find_version(repository, "shop", "x") is None
    assert find_labelled(repository, "shop", "stable") is None
