from __future__ import annotations

from pathlib import Path

from export.bundle import ModelRepository, open_manifest
from jobs.steps.publishing import find_labelled, find_version
from tests.kits.repository_kit import publish


def test_a_version_is_found_by_its_content_the_latest_first(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models")
    paths = [publish(repository) for _ in range(2)]
    content = open_manifest(paths[0]).bundle_id
    assert find_version(repository, "toy", content) == "2"
    assert find_version(repository, "toy", "x") is None
    (paths[1] / "manifest.json").write_text("{}")  # one that does not open is nobody's content
    assert find_version(repository, "toy", content) == "1"


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models")
    assert find_version(repository, "shop", "x") is None
    assert find_labelled(repository, "shop", "stable") is None
