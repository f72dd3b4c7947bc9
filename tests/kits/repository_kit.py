"""What every repository must do, wherever it is kept; a subclass brings `repository` and `damage`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from export.bundle import (
    BundleError,
    BundleExists,
    ModelRepository,
    ModelVersions,
    Repository,
    RepositoryError,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
    WrongAnswer,
    open_bundle,
    open_manifest,
)
from tests.export.toy import toy_contents, toy_manifest, write_placeholders


def publish(repository: Repository, version: str = "", name: str = "toy", label: str | None = None) -> Path:
    return repository.publish(toy_manifest(name, version), toy_contents(), write_placeholders, label=label)


class RepositoryKit(ABC):
    """Tests of models, versions and labels."""

    @pytest.fixture
    @abstractmethod
    def repository(self) -> Repository:
        """An empty one."""

    @abstractmethod
    def damage(self, repository: Repository, model: str, version: str, file: str) -> None:
        """Change a byte of a file where it is kept."""

    def test_an_empty_one_has_no_models(self, repository: Repository) -> None:
        assert repository.models() == []
        with pytest.raises(UnknownModel, match="there are: none"):
            repository.versions("toy")
        with pytest.raises(UnknownModel):
            repository.labels("toy")

    def test_versions_are_numbered_on_and_open(self, repository: Repository) -> None:
        assert [publish(repository).name for _ in range(2)] == ["1", "2"]
        assert publish(repository, "10").name == "10"
        assert publish(repository).name == "11"
        assert repository.versions("toy") == ["1", "2", "10", "11"]
        assert repository.models() == ["toy"]
        path = repository.resolve("toy", "10")
        assert open_bundle(path).manifest == repository.manifest("toy", "10") == open_manifest(path)

    def test_a_version_is_not_written_twice(self, repository: Repository) -> None:
        before = open_manifest(publish(repository, "2"))
        with pytest.raises(BundleExists, match="give another version"):
            publish(repository, "2")
        assert repository.manifest("toy", "2") == before

    def test_the_default_is_stable_or_else_the_newest(self, repository: Repository) -> None:
        publish(repository)
        publish(repository)
        assert repository.version_of("toy") == "2"
        repository.set_label("toy", "stable", "1")
        assert repository.version_of("toy") == repository.version_of("toy", "stable") == "1"
        assert repository.resolve("toy").name == "1"
        assert repository.version_of("toy", "2") == "2"

    def test_moving_stable_leaves_previous_and_rolls_back(self, repository: Repository) -> None:
        publish(repository)
        publish(repository)
        with pytest.raises(UnknownLabel, match="previous"):
            repository.rollback("toy")
        for version in ("1", "2", "2"):
            repository.set_label("toy", "stable", version)
        assert repository.labels("toy") == {"stable": "2", "previous": "1"}
        repository.rollback("toy")
        assert repository.labels("toy") == {"stable": "1", "previous": "2"}

    def test_a_label_never_points_to_a_bad_bundle(self, repository: Repository) -> None:
        publish(repository, label="stable")
        publish(repository)
        self.damage(repository, "toy", "2", "fold_in.onnx")
        with pytest.raises(BundleError, match=r"fold_in\.onnx"):
            repository.set_label("toy", "stable", "2")
        assert repository.labels("toy") == {"stable": "1"}

    @pytest.mark.parametrize("name", ["absent", "../toy", "", ".", "a/b"])
    def test_unknown_model(self, repository: Repository, name: str) -> None:
        publish(repository)
        with pytest.raises(UnknownModel):
            repository.resolve(name)

    def test_unknown_version_and_label(self, repository: Repository) -> None:
        publish(repository)
        with pytest.raises(UnknownVersion, match="there are: 1"):
            repository.resolve("toy", "3")
        for label in ("canary", "../1", ""):
            with pytest.raises(UnknownLabel):
                repository.resolve("toy", label)

    @pytest.mark.parametrize("word", ["Stable", "1", "", "a/b"])
    def test_what_is_no_label_is_refused_before_anything_is_written(self, repository: Repository, word: str) -> None:
        with pytest.raises(RepositoryError, match="label"):
            publish(repository, label=word)
        assert repository.models() == []

    @pytest.mark.parametrize("version", ["0", "01", "v1", "../1", "-1"])
    def test_what_is_no_version_is_refused(self, repository: Repository, version: str) -> None:
        with pytest.raises(RepositoryError, match="version"):
            publish(repository, version)

    def test_what_fails_its_check_is_no_version(self, repository: Repository) -> None:
        def refuse(_: Path) -> None:
            raise WrongAnswer("recommend.onnx: wrong")

        publish(repository)
        with pytest.raises(WrongAnswer):
            repository.publish(toy_manifest(version=""), toy_contents(), write_placeholders, refuse, "stable")
        assert repository.versions("toy") == ["1"]
        assert repository.labels("toy") == {}
        assert publish(repository).name == "2"

    def test_a_bundle_from_elsewhere_becomes_the_next_version(self, repository: Repository, tmp_path: Path) -> None:
        elsewhere = ModelRepository(tmp_path / "elsewhere")
        bundles = [publish(elsewhere, name="other") for _ in range(2)]
        publish(repository)
        assert [repository.add(bundle, "toy") for bundle in bundles] == ["2", "3"]
        assert (repository.versions("toy"), repository.labels("toy")) == (["1", "2", "3"], {})
        for version in ("2", "3"):
            card = open_bundle(repository.resolve("toy", version), verify=True).manifest.model
            assert (card.name, card.version) == ("toy", version)
        repository.set_label("toy", "stable", "3")
        with pytest.raises(UnknownModel):
            repository.add(publish(elsewhere, name="other"), "../toy")

    def test_labels_that_many_move_at_once_are_all_there(self, repository: Repository) -> None:
        publish(repository)
        words = [f"label-{letter}" for letter in "abcd"]
        threads = [threading.Thread(target=repository.set_label, args=("toy", word, "1")) for word in words]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert repository.labels("toy") == dict.fromkeys(words, "1")

    def test_an_overview_of_one_model_or_of_all(self, repository: Repository) -> None:
        publish(repository, name="another")
        publish(repository, label="canary")
        assert repository.overview() == [
            ModelVersions("another", ["1"], {}),
            ModelVersions("toy", ["1"], {"canary": "1"}),
        ]
        assert repository.overview("toy") == [ModelVersions("toy", ["1"], {"canary": "1"})]

    def test_the_signature_changes_with_labels_and_files_alone(self, repository: Repository) -> None:
        publish(repository)
        before = repository.signature("toy", ["1"])
        assert repository.signature("toy", ["1"]) == before
        repository.set_label("toy", "stable", "1")
        labelled = repository.signature("toy", ["1"])
        assert labelled != before
        self.damage(repository, "toy", "1", "fold_in.onnx")
        assert repository.signature("toy", ["1"]) != labelled
