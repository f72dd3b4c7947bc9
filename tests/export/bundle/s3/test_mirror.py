"""What is brought from a store: once, whole, bounded, and gone when nobody needs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from export.bundle import CannotWriteBundle, ChecksumMismatch, Repository, RepositoryError, open_bundle, open_repository
from export.bundle.s3.mirror import LEFT_FREE_BYTES, Mirror
from export.bundle.s3.transfer import Progress
from tests.export.bundle.s3.test_repository import spoil
from tests.kits.repository_kit import publish

Read = Callable[..., Repository]


@pytest.fixture
def remote(bucket: str, tmp_path: Path) -> Repository:
    """Where versions are published."""
    return open_repository(bucket, mirror=tmp_path / "publisher")


@pytest.fixture
def read(remote: Repository, tmp_path: Path) -> Read:
    """Opens it as somebody else who serves from it does."""

    def make(folder: str = "mirror", spare: int = 0, said: list[str] | None = None) -> Repository:
        say = None if said is None else said.append
        return open_repository(remote.place, mirror=tmp_path / folder, spare=spare, serves=True, say=say)

    return make


def versions(root: Path) -> list[str]:
    return sorted((path.name for path in (root / "toy").iterdir() if path.name.isdigit()), key=int)


def test_a_version_is_brought_once_and_again_where_it_is_damaged(remote: Repository, read: Read) -> None:
    publish(remote)
    said: list[str] = []
    path = read(said=said).fetch("toy", "1")
    assert open_bundle(path).manifest == remote.manifest("toy", "1")
    assert [line.startswith(f"mirrored {remote.place}/toy/1: ") for line in said] == [True]
    assert read(said=said).fetch("toy", "1") == path
    assert len(said) == 1
    file = path / "popularity.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\x09")
    assert open_bundle(read(said=said).fetch("toy", "1"))
    assert len(said) == 2


def test_what_is_not_what_its_manifest_says_is_never_seen(remote: Repository, read: Read, tmp_path: Path) -> None:
    publish(remote)
    spoil(remote.place, "toy", "1", "seen_indices.npy")
    with pytest.raises(
        ChecksumMismatch, match=rf"{remote.place}/toy/1/seen_indices\.npy: SHA-256 is not the manifest's"
    ):
        read().fetch("toy", "1")
    assert versions(tmp_path / "mirror") == []
    assert not list((tmp_path / "mirror" / "toy").glob("*.draft"))


def test_what_finds_no_room_is_refused_before_it_is_read(
    remote: Repository, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(remote)
    usage = shutil.disk_usage(tmp_path)._replace(free=LEFT_FREE_BYTES + 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CannotWriteBundle, match=r"needs [\d,]+ bytes, and [\d,]+ are free"):
        read().fetch("toy", "1")
    assert versions(tmp_path / "mirror") == []


def test_versions_that_nobody_needs_go_but_for_the_newest_few(remote: Repository, read: Read, tmp_path: Path) -> None:
    for _ in range(6):
        publish(remote)
    remote.set_label("toy", "canary", "2", verify=False)
    reader, root = read(spare=1), tmp_path / "mirror"
    for version in "123456":
        reader.fetch("toy", version)
    other = read(spare=0)
    other.fetch("toy", "3")
    reader.settle("toy", reader.labels("toy"), ["6"])
    assert versions(root) == ["2", "3", "5", "6"], "labelled, another's, spare, served"
    local = reader.last_good
    assert local is not None
    assert local.labels("toy") == {"canary": "2"}
    other.settle("toy", {}, [])
    assert versions(root) == ["6"], "what the first one holds"


def test_what_a_killed_process_held_goes(remote: Repository, read: Read, tmp_path: Path) -> None:
    publish(remote)
    publish(remote)
    code = (
        "import os, signal, sys; from pathlib import Path; from export.bundle import open_repository\n"
        "open_repository(sys.argv[1], mirror=Path(sys.argv[2])).fetch('toy', '1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, remote.place, str(tmp_path / "mirror")]
    assert subprocess.run(command, check=False).returncode == -9
    assert versions(tmp_path / "mirror") == ["1"]
    reader = read()
    reader.fetch("toy", "2")
    reader.settle("toy", {}, ["2"])
    assert versions(tmp_path / "mirror") == ["2"]


def test_a_directory_of_something_else_is_no_mirror(tmp_path: Path) -> None:
    (tmp_path / "models" / "student" / "1").mkdir(parents=True)
    with pytest.raises(RepositoryError, match="is not empty and no mirror of s3://models/a; give an empty directory"):
        Mirror(tmp_path / "models", "s3://models/a", 0).prepare()
    Mirror(tmp_path / "new", "s3://models/a", 0).prepare()
    Mirror(tmp_path / "new", "s3://models/a", 0).prepare()
    with pytest.raises(RepositoryError, match="is the mirror of s3://models/a; give one of its own to s3://models/b"):
        Mirror(tmp_path / "new", "s3://models/b", 0).prepare()


def test_who_only_asks_the_store_needs_no_mirror(remote: Repository, tmp_path: Path) -> None:
    publish(remote, label="stable")
    (tmp_path / "file").touch()
    asking = open_repository(remote.place, mirror=tmp_path / "file" / "mirror")
    assert asking.overview() == remote.overview()
    assert asking.manifest("toy", "1") == remote.manifest("toy", "1")
    with pytest.raises(RepositoryError, match=r"cannot be a mirror .*; give another directory"):
        asking.reserve("toy")
    with pytest.raises(RepositoryError, match="cannot be a mirror"):
        asking.resolve("toy")


def test_progress_tells_every_few_seconds_what_is_left() -> None:
    said: list[str] = []
    now = [0.0]
    progress = Progress("sending toy/1", 1000, said.append, lambda: now[0])
    for second in range(1, 11):
        now[0] = float(second)
        progress.count(100)
    assert said == ["sending toy/1: 500 of 1,000 bytes, about 5 s more"]
