"""`lowpass models` on a repository on disk; `tests/serve/live/test_live_models.py` runs it on a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lowpass
from export.bundle.repository import ModelRepository
from tests.serve.repositories import two_versions


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    return two_versions(tmp_path_factory.mktemp("models"))


@pytest.fixture
def disk(template: ModelRepository) -> ModelRepository:
    (template.root / "student" / "labels.json").write_text('{"stable": "1"}')
    return template


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert lowpass.main(["models", *words]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[str]]:
    """Version → its labels."""
    rows: list[dict[str, Any]] = json.loads(run(capsys, *words, "--json"))["versions"]
    assert {row["model"] for row in rows} == {"student"}
    return {row["version"]: row["labels"] for row in rows}


def test_lists_versions_and_labels(disk: ModelRepository, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--repository", str(disk.root))
    assert [line.split() for line in run(capsys, "list", *where).splitlines()] == [
        ["model", "labels"],
        ["student:1", "stable"],
        ["student:2"],
    ]
    assert as_json(capsys, "list", "student", *where) == {"1": ["stable"], "2": []}


def test_moves_a_label_and_back(disk: ModelRepository, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--repository", str(disk.root))
    assert as_json(capsys, "label", "student", "canary", "2", *where) == {"1": ["stable"], "2": ["canary"]}
    moved = as_json(capsys, "label", "student", "stable", "canary", *where)
    assert moved == {"1": ["previous"], "2": ["canary", "stable"]}
    assert disk.labels("student") == {"canary": "2", "previous": "1", "stable": "2"}
    assert "student:2" in run(capsys, "rollback", "student", *where)
    assert disk.labels("student") == {"canary": "2", "previous": "2", "stable": "1"}


def test_a_label_never_points_to_what_does_not_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = two_versions(tmp_path)
    damaged = disk.resolve("student", "2") / "popularity.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    assert lowpass.main(["models", "label", "student", "stable", "2", "--repository", str(tmp_path)]) == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "popularity.npy" in complaint
    assert disk.labels("student") == {"stable": "1"}


@pytest.mark.parametrize(
    "words", [["list", "nobody"], ["label", "student", "stable", "9"], ["rollback", "student"], ["rollback", "nobody"]]
)
def test_what_is_not_there_is_named(
    disk: ModelRepository, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert lowpass.main(["models", *words, "--repository", str(disk.root)]) == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert complaint.startswith("lowpass: error: ")
    assert disk.labels("student") == {"stable": "1"}


@pytest.mark.parametrize(
    "words", [["load", "student"], ["unload", "student", "1"], ["split", "student"], ["shadow", "student"]]
)
def test_what_needs_a_server_says_so(
    disk: ModelRepository, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert lowpass.main(["models", *words, "--repository", str(disk.root)]) == 2
    said = capsys.readouterr().err
    assert f"'lowpass models {words[0]}' changes a running server: give --target, not --repository" in said


def test_a_server_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["models", "list", "--target", "127.0.0.1:1", "--timeout", "0.2"]) == 2
    assert capsys.readouterr().err.startswith("lowpass: error: ")


def test_a_wrong_share_is_named_before_a_server_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["models", "split", "student", "canary", "--target", "127.0.0.1:1"]) == 2
    assert "'canary': give NAME=SHARE" in capsys.readouterr().err
