"""A disk that fills up while a bundle is published. Tried: every size of a disk, and every write that may fail.

Lost: nothing. No part of a bundle is visible or left behind, labels stay, and one line says why.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lowpass
from export.bundle import CannotWriteBundle, RepositoryError
from export.bundle.repository import ModelRepository
from tests.serve.repositories import publish

LARGEST = 200


class Disk:
    """A small file system of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def mount(self, kibibytes: int) -> None:
        options = ["-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs"]
        done = subprocess.run(["mount", *options, str(self.root)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("a file system cannot be mounted here")

    def grow(self, kibibytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kibibytes}k", str(self.root)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.root)], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    made = Disk(tmp_path / "disk")
    yield made
    made.unmount()


def held(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def tried(root: Path) -> CannotWriteBundle | None:
    try:
        publish(root, "student", factory="Flat")
    except CannotWriteBundle as error:
        return error
    return None


def test_a_bundle_is_written_whole_or_not_at_all(disk: Disk) -> None:
    sizes = range(12, LARGEST, 4)
    for kibibytes in sizes:
        disk.mount(kibibytes)
        error, left = tried(disk.root), held(disk.root)
        disk.unmount()
        if error is None:
            break
        assert "\n" not in str(error)
        assert "free space there and try again" in str(error)
        assert not left, "neither a draft nor an empty model"
    assert 60 < kibibytes < sizes[-1]


def test_a_second_version_that_does_not_fit_leaves_the_first_and_its_label(disk: Disk) -> None:
    disk.mount(LARGEST)
    publish(disk.root, "student", factory="Flat")
    repository = ModelRepository(disk.root)
    repository.set_label("student", "stable", "1")
    before = held(disk.root)
    with pytest.raises(CannotWriteBundle):
        publish(disk.root, "student", factory="Flat")
    assert held(disk.root) == before
    assert repository.labels("student") == {"stable": "1"}
    disk.grow(2 * LARGEST)
    assert publish(disk.root, "student", factory="Flat").name == "2"


def test_export_says_it_in_one_line(workplace: Path, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    disk.mount(12)
    words = ["export", workplace / "student", "--data", workplace / "data", "--repository", disk.root]
    assert lowpass.main([*map(str, words), "--model", "student", "--label", "stable"]) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("lowpass: error: ")
    assert "cannot be written" in complaint
    assert not held(disk.root)


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.rename"])
def test_a_write_that_fails_at_the_very_end_leaves_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(call, full)
    with pytest.raises(CannotWriteBundle, match="No space left on device"):
        publish(tmp_path, "student", factory="Flat")
    assert not held(tmp_path)


def test_a_label_that_cannot_be_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        publish(tmp_path, "student", factory="Flat", seed=seed)
    repository = ModelRepository(tmp_path)
    repository.set_label("student", "stable", "1")
    before = held(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RepositoryError, match="No space left on device"):
        repository.set_label("student", "stable", "2")
    assert (repository.labels("student"), held(tmp_path)) == ({"stable": "1"}, before)
