from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import export.bundle.repository
from export.bundle import (
    ChecksumMismatch,
    ModelRepository,
    ModelVersions,
    NotABundle,
    Repository,
    RepositoryError,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
    find_bundle,
    open_bundle,
    open_manifest,
)
from export.bundle.description import describe_versions
from export.bundle.writer import copy_bundle
from tests.export.toy import toy_contents, toy_manifest, write_placeholders
from tests.kits.repository_kit import RepositoryKit, publish


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    """Model `toy` with versions 1 and 2, no labels."""
    repository = ModelRepository(tmp_path / "models")
    for _ in range(2):
        publish(repository)
    return repository


class TestModelRepository(RepositoryKit):
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Repository:
        return ModelRepository(tmp_path / "models")

    def damage(self, repository: Repository, model: str, version: str, file: str) -> None:
        path = repository.fetch(model, version) / file
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.fixture(params=["renamed", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "copied":
        monkeypatch.setattr(export.bundle.repository, "on_one_disk", lambda one, other: False)
    return str(request.param)


def test_a_bundle_from_elsewhere_appears_whole(repository: ModelRepository, tmp_path: Path, way: str) -> None:
    bundle = publish(ModelRepository(tmp_path / "elsewhere"), name="other")
    assert repository.add(bundle, "toy") == "3"
    assert open_bundle(repository.resolve("toy", "3"), verify=True).manifest.model.name == "toy"
    assert bundle.exists() == (way == "copied")
    assert not [path for path in (repository.root / "toy").iterdir() if path.name.startswith(".")]


def test_a_copy_that_does_not_verify_leaves_nothing(repository: ModelRepository, tmp_path: Path) -> None:
    bundle = publish(ModelRepository(tmp_path / "elsewhere"))
    content = (bundle / "fold_in.onnx").read_bytes()
    (bundle / "fold_in.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ChecksumMismatch):
        copy_bundle(bundle, repository.root / "toy" / "3", open_manifest(bundle).named("toy", "3"))
    assert sorted(path.name for path in (repository.root / "toy").iterdir()) == ["1", "2"]


def test_a_number_that_others_took_meanwhile_is_passed_over(
    repository: ModelRepository, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = publish(ModelRepository(tmp_path / "elsewhere"))
    reserve, given = repository.reserve, iter(["2", ""])

    def reserve_late(model: str) -> Path:
        version = next(given)
        return repository.root / model / version if version else reserve(model)

    monkeypatch.setattr(repository, "reserve", reserve_late)
    assert repository.add(bundle, "toy") == "3"


def test_drafts_and_strangers_are_not_versions(repository: ModelRepository) -> None:
    for name in (".3.abc", "notes", "0", "01"):
        (repository.root / "toy" / name).mkdir()
    (repository.root / "empty").mkdir()
    (repository.root / ".draft").mkdir()
    assert repository.versions("toy") == ["1", "2"]
    assert repository.models() == ["toy"]


@pytest.mark.parametrize("content", ["", "[]", '{"stable": 1}', '{"stable": "../../etc"}', '{"../x": "1"}'])
def test_bad_labels_are_an_error_not_a_crash(repository: ModelRepository, content: str) -> None:
    (repository.root / "toy" / "labels.json").write_text(content)
    with pytest.raises(RepositoryError, match="labels"):
        repository.resolve("toy")


def test_a_label_to_a_version_that_is_gone(repository: ModelRepository) -> None:
    (repository.root / "toy" / "labels.json").write_text(json.dumps({"stable": "7"}))
    with pytest.raises(UnknownVersion, match="7"):
        repository.resolve("toy")


def test_a_label_that_cannot_be_set_leaves_no_version_behind(
    repository: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("export.bundle.repository.write_file", full)
    with pytest.raises(RepositoryError, match=r"labels\.json: cannot be written"):
        repository.publish(toy_manifest(version=""), toy_contents(), write_placeholders, label="stable")
    assert [path.name for path in sorted((repository.root / "toy").iterdir())] == ["1", "2"]


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
