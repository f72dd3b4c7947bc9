from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import distill.storage
from distill.storage import publish_directory, publish_file, write_file


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


def test_publish_file_shows_the_old_file_or_the_whole_new_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "tensors"
    write_file(target, b"old")

    def write_half() -> None:
        with publish_file(target) as draft:
            draft.write_bytes(b"ne")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert target.read_bytes() == b"old"
    with publish_file(target) as draft:
        draft.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["tensors"]


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


def leave_drafts(target: Path) -> list[Path]:
    """What a process leaves that is killed while it writes `target`, as a file or as a directory."""
    code = (
        "import os, signal, sys; from pathlib import Path; from distill.storage import publish_directory, _open_draft\n"
        "_open_draft(Path(sys.argv[1]), directory=False)\n"
        "with publish_directory(Path(sys.argv[1])) as draft:\n"
        "    (draft / 'half').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == -signal.SIGKILL
    return sorted(target.parent.iterdir())


def test_drafts_of_a_killed_process_are_removed_by_the_next_one(tmp_path: Path) -> None:
    assert len(leave_drafts(tmp_path / "out")) == 2
    mine = tmp_path / ".out.original.txt"
    mine.touch()
    with publish_directory(tmp_path / "out") as draft:
        (draft / "whole").touch()
    assert sorted(tmp_path.iterdir()) == [mine, tmp_path / "out"]


def test_drafts_of_a_living_process_stay(tmp_path: Path) -> None:
    with publish_directory(tmp_path / "out") as slow:
        (slow / "slow").touch()
        with publish_directory(tmp_path / "out") as quick:
            (quick / "quick").touch()
        write_file(tmp_path / "other", b"")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["slow"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_directory_is_replaced_where_two_paths_cannot_change_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill.storage, "_exchange", lambda one, other: False)
    test_publish_directory_replaces_a_whole_directory(tmp_path)
