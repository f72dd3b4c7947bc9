from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from export.bundle import (
    BundleExists,
    ChecksumMismatch,
    ModelRepository,
    ModelVersions,
    NotABundle,
    RepositoryError,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
    WrongAnswer,
    find_bundle,
)
from export.bundle.description import describe_versions
from tests.export.toy import toy_contents, toy_manifest, write_placeholders


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    """Model `toy` with versions 1 and 2, no labels."""
    repository = ModelRepository(tmp_path / "models")
    for _ in range(2):
        publish(repository)
    return repository


def publish(repository: ModelRepository, version: str = "", name: str = "toy") -> Path:
    return repository.publish(toy_manifest(name, version), toy_contents(), write_placeholders)


def test_versions_are_numbered_on(repository: ModelRepository) -> None:
    assert repository.versions("toy") == ["1", "2"]
    assert publish(repository, "10").name == "10"
    assert publish(repository).name == "11"
    assert repository.versions("toy") == ["1", "2", "10", "11"]
    assert repository.models() == ["toy"]


def test_a_version_is_not_written_twice(repository: ModelRepository) -> None:
    with pytest.raises(BundleExists):
        publish(repository, "2")


def test_the_default_is_stable_or_else_the_newest(repository: ModelRepository) -> None:
    assert repository.resolve("toy").name == "2"
    repository.set_label("toy", "stable", "1")
    assert repository.resolve("toy").name == "1"
    assert repository.resolve("toy", "2").name == "2"
    assert repository.resolve("toy", "stable").name == "1"


def test_moving_stable_leaves_previous_and_rolls_back(repository: ModelRepository) -> None:
    repository.set_label("toy", "stable", "1")
    repository.set_label("toy", "stable", "2")
    assert repository.labels("toy") == {"stable": "2", "previous": "1"}
    repository.set_label("toy", "stable", "previous")
    assert repository.labels("toy") == {"stable": "1", "previous": "2"}


def test_moving_stable_to_where_it_is_keeps_previous(repository: ModelRepository) -> None:
    for version in ("1", "2", "2"):
        repository.set_label("toy", "stable", version)
    assert repository.labels("toy") == {"stable": "2", "previous": "1"}


def test_a_label_never_points_to_a_bad_bundle(repository: ModelRepository) -> None:
    repository.set_label("toy", "stable", "1")
    (repository.resolve("toy", "2") / "fold_in.onnx").write_bytes(b"placeholdeR")
    with pytest.raises(ChecksumMismatch):
        repository.set_label("toy", "stable", "2")
    assert repository.labels("toy") == {"stable": "1"}


def test_drafts_and_strangers_are_not_versions(repository: ModelRepository) -> None:
    for name in (".3.abc", "notes", "0", "01"):
        (repository.root / "toy" / name).mkdir()
    (repository.root / "empty").mkdir()
    (repository.root / ".draft").mkdir()
    assert repository.versions("toy") == ["1", "2"]
    assert repository.models() == ["toy"]


def test_an_empty_repository_has_no_models(tmp_path: Path) -> None:
    assert ModelRepository(tmp_path / "nowhere").models() == []


@pytest.mark.parametrize("name", ["absent", "../toy", "", ".", "a/b"])
def test_unknown_model(repository: ModelRepository, name: str) -> None:
    with pytest.raises(UnknownModel):
        repository.resolve(name)


def test_unknown_version(repository: ModelRepository) -> None:
    with pytest.raises(UnknownVersion, match="1, 2"):
        repository.resolve("toy", "3")


@pytest.mark.parametrize("label", ["canary", "../1", ""])
def test_unknown_label(repository: ModelRepository, label: str) -> None:
    with pytest.raises(UnknownLabel):
        repository.resolve("toy", label)


@pytest.mark.parametrize("label", ["Stable", "1", "", "a/b"])
def test_what_is_no_label_is_refused(repository: ModelRepository, label: str) -> None:
    with pytest.raises(RepositoryError, match="label"):
        repository.set_label("toy", label, "1")


@pytest.mark.parametrize("version", ["0", "01", "v1", "../1", "-1"])
def test_what_is_no_version_is_refused(repository: ModelRepository, version: str) -> None:
    with pytest.raises(RepositoryError, match="version"):
        publish(repository, version)


@pytest.mark.parametrize("content", ["", "[]", '{"stable": 1}', '{"stable": "../../etc"}', '{"../x": "1"}'])
def test_bad_labels_are_an_error_not_a_crash(repository: ModelRepository, content: str) -> None:
    (repository.root / "toy" / "labels.json").write_text(content)
    with pytest.raises(RepositoryError, match="labels"):
        repository.resolve("toy")


def test_a_label_to_a_version_that_is_gone(repository: ModelRepository) -> None:
    (repository.root / "toy" / "labels.json").write_text(json.dumps({"stable": "7"}))
    with pytest.raises(UnknownVersion, match="7"):
        repository.resolve("toy")


def test_what_fails_its_check_is_no_version(repository: ModelRepository) -> None:
    def refuse(_: Path) -> None:
        raise WrongAnswer("recommend.onnx: wrong")

    with pytest.raises(WrongAnswer):
        repository.publish(toy_manifest(version=""), toy_contents(), write_placeholders, refuse, "stable")
    assert [path.name for path in sorted((repository.root / "toy").iterdir())] == ["1", "2"]


def test_a_label_that_cannot_be_set_leaves_no_version_behind(
    repository: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("export.bundle.repository.write_file", full)
    with pytest.raises(RepositoryError, match=r"labels\.json: cannot be written"):
        repository.publish(toy_manifest(version=""), toy_contents(), write_placeholders, label="stable")
    assert [path.name for path in sorted((repository.root / "toy").iterdir())] == ["1", "2"]


def test_a_word_that_is_no_label_is_refused_before_anything_is_written(repository: ModelRepository) -> None:
    with pytest.raises(RepositoryError, match="label 'Stable'"):
        repository.reserve("toy", label="Stable")
    with pytest.raises(RepositoryError, match="label 'Stable'"):
        repository.publish(toy_manifest(version=""), toy_contents(), write_placeholders, label="Stable")
    assert repository.versions("toy") == ["1", "2"]


def test_a_published_version_takes_its_label(repository: ModelRepository) -> None:
    path = repository.publish(toy_manifest(version=""), toy_contents(), write_placeholders, label="canary")
    assert (path.name, repository.labels("toy")) == ("3", {"canary": "3"})


def test_rolling_back_changes_places(repository: ModelRepository) -> None:
    repository.set_label("toy", "stable", "1")
    with pytest.raises(UnknownLabel, match="previous"):
        repository.rollback("toy")
    repository.set_label("toy", "stable", "2")
    repository.rollback("toy")
    assert repository.labels("toy") == {"stable": "1", "previous": "2"}


def test_an_overview_of_one_model_or_of_all(repository: ModelRepository) -> None:
    publish(repository, name="another")
    repository.set_label("toy", "stable", "1")
    toy = ModelVersions("toy", ["1", "2"], {"stable": "1"})
    assert repository.overview() == [ModelVersions("another", ["1"], {}), toy]
    assert repository.overview("toy") == [toy]
    assert describe_versions(repository.overview()) == [
        "another: versions 1; no labels",
        "toy: versions 1, 2; stable → 1",
    ]
    with pytest.raises(UnknownModel):
        repository.overview("absent")


def test_a_bundle_is_found_by_name_or_by_path(repository: ModelRepository) -> None:
    repository.set_label("toy", "stable", "1")
    found = {name: find_bundle(name, repository.root).name for name in ("toy", "toy:2", "toy:stable")}
    assert found == {"toy": "1", "toy:2": "2", "toy:stable": "1"}
    assert find_bundle(str(repository.root / "toy" / "2")) == repository.root / "toy" / "2"
    with pytest.raises(NotABundle, match="give a bundle's directory, or --repository and a model"):
        find_bundle("toy")
    with pytest.raises(UnknownLabel):
        find_bundle("toy:canary", repository.root)


def test_drafts_of_a_killed_export_go_with_the_next_and_those_of_a_living_one_stay(repository: ModelRepository) -> None:
    model = repository.root / "toy"
    code = (
        "import os, signal, sys; from pathlib import Path; from tests.export.toy import toy_contents, toy_manifest\n"
        "from export.bundle import write_bundle\n"
        "die = lambda draft: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_bundle(Path(sys.argv[1]), toy_manifest(), toy_contents(), die)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(model / "3")], check=False)
    assert killed.returncode == -signal.SIGKILL
    (model / ".2.unlabelled").mkdir()
    (abandoned,) = model.glob(".3.*.draft")
    seen: list[set[str]] = []

    def look(draft: Path) -> None:
        write_placeholders(draft)
        publish(repository, "9")
        seen.append({path.name for path in model.glob(".*")} - {draft.name})

    assert abandoned.is_dir()
    repository.publish(toy_manifest("toy", "4"), toy_contents(), look)
    assert seen == [set()]
    assert sorted(path.name for path in model.iterdir()) == ["1", "2", "4", "9"]


def test_a_label_is_on_disk_when_it_is_said_to_be(repository: ModelRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    left = repository.root / "toy" / ".labels.json.killed00.draft"
    left.touch()
    monkeypatch.setattr("os.fsync", watch)
    repository.set_label("toy", "stable", "1")
    assert synced == [False, True], "the file, and then the directory that names it"
    assert not left.exists()
