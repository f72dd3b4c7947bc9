from __future__ import annotations

from pathlib import Path

import pytest

from distill.storage import publish_directory, write_file


def test_write_file_replaces_content_and_leaves_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.json"
    write_file(target, b"old")
    write_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["file.json"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_write_file_that_fails_leaves_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(OSError, match="taken"):
        write_file(target, b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_publish_directory_replaces_a_whole_directory(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in ("first", "second"):
        with publish_directory(target) as draft:
            assert draft.parent == tmp_path
            (draft / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_publish_directory_keeps_the_old_one_on_error(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with publish_directory(target) as draft:
        (draft / "good").touch()

    def fail() -> None:
        with publish_directory(target) as draft:
            (draft / "bad").touch()
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert [path.name for path in target.iterdir()] == ["good"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
