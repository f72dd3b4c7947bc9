from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import S3Store

import lowpass
from export.bundle import (
    BundleExists,
    Repository,
    RepositoryError,
    StoreError,
    UnknownVersion,
    open_bundle,
    open_repository,
)
from export.bundle.s3.address import S3Address
from export.bundle.s3.objects import Count, Objects
from export.bundle.s3.repository import S3Repository
from tests.kits.repository_kit import RepositoryKit, publish
from tests.kits.seaweedfs import KEY


def spoil(place: str, model: str, version: str, file: str) -> None:
    """Change the last byte of an object."""
    objects, key = Objects(S3Address.parse(place)), f"{model}/{version}/{file}"
    found = objects.read(key, 1 << 30)
    assert found is not None
    assert objects.replace(key, found.data[:-1] + bytes([found.data[-1] ^ 1]), found.etag)


class TestS3Repository(RepositoryKit):
    @pytest.fixture
    def repository(self, bucket: str, tmp_path: Path) -> Repository:
        # The mirror of a reader that did not publish what it reads would do as well; see test_mirror.py.
        return open_repository(bucket, mirror=tmp_path / "mirror")

    def damage(self, repository: Repository, model: str, version: str, file: str) -> None:
        spoil(repository.place, model, version, file)
        local = repository.last_good
        assert local is not None
        (local.fetch(model, version) / file).unlink()  # what is mirrored is good still


@pytest.fixture
def remote(bucket: str, tmp_path: Path) -> S3Repository:
    made = open_repository(bucket, mirror=tmp_path / "mirror")
    assert isinstance(made, S3Repository)
    return made


def keys(place: str) -> set[str]:
    return {each.key for each in Objects(S3Address.parse(place)).list("toy")}


def test_publishers_at_once_take_different_versions(bucket: str, tmp_path: Path) -> None:
    def one(number: int) -> str:
        return publish(open_repository(bucket, mirror=tmp_path / str(number))).name

    with ThreadPoolExecutor(4) as pool:
        taken = sorted(pool.map(one, range(4)), key=int)
    assert taken == ["1", "2", "3", "4"]
    reader = open_repository(bucket, mirror=tmp_path / "reader")
    assert [open_bundle(reader.resolve("toy", version)).manifest.model.version for version in taken] == taken


def test_of_one_version_that_many_want_one_gets_it(bucket: str, tmp_path: Path) -> None:
    def one(number: int) -> str:
        try:
            return publish(open_repository(bucket, mirror=tmp_path / str(number)), "7").name
        except BundleExists as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert found.count("7") == 1
    assert all(f"{bucket}/toy/7: " in each for each in found if each != "7")
    assert open_bundle(open_repository(bucket, mirror=tmp_path / "reader").resolve("toy", "7"))


def test_a_killed_upload_is_no_version_and_goes_after_a_day(
    remote: S3Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish(remote, label="stable")
    code = (
        "import os, signal, sys; from pathlib import Path; from export.bundle import open_repository\n"
        "from export.bundle.s3.objects import Objects; from tests.kits.repository_kit import publish\n"
        "upload = Objects.upload\n"
        "def dies(self, path, key, count):\n"
        "    upload(self, path, key, count)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Objects.upload = dies\n"
        "publish(open_repository(sys.argv[1], mirror=Path(sys.argv[2])), label='stable')\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, remote.place, str(tmp_path / "killed")], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = {key for key in keys(remote.place) if key.startswith("toy/2/")}
    assert 2 <= len(left) < 10
    assert "toy/2/manifest.json" not in left
    assert (remote.versions("toy"), remote.labels("toy")) == (["1"], {"stable": "1"})
    with pytest.raises(UnknownVersion):
        remote.resolve("toy", "2")
    said: list[str] = []
    assert publish(open_repository(remote.place, say=said.append)).name == "3"
    assert [f"{remote.place}/toy/2: has no manifest.json and is no version" in line for line in said] == [True]
    monkeypatch.setattr("export.bundle.s3.repository.ABANDONED", timedelta(seconds=-5))
    said.clear()
    assert publish(open_repository(remote.place, say=said.append)).name == "4"
    assert [f"{remote.place}/toy/2: removed: an upload that broke off" in line for line in said] == [True]
    assert not {key for key in keys(remote.place) if key.startswith("toy/2/")}
    assert remote.versions("toy") == ["1", "3", "4"]


def test_an_upload_that_fails_leaves_nothing(remote: S3Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(remote)
    before = keys(remote.place)
    upload = Objects.upload

    def fails(self: Objects, path: Path, key: str, count: Count) -> None:
        if path.name == "popularity.npy":
            raise StoreError("s3://models: the store answers 503 SlowDown")
        upload(self, path, key, count)

    monkeypatch.setattr(Objects, "upload", fails)
    with pytest.raises(StoreError, match="503"):
        publish(remote, label="stable")
    assert keys(remote.place) == before
    assert not (remote.last_good.root / "toy" / "2").exists()


def test_who_loses_the_claim_writes_no_manifest(remote: S3Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a store that knows no conditions, where two may make the same claim."""
    objects, upload = Objects(S3Address.parse(remote.place)), Objects.upload

    def taken(self: Objects, path: Path, key: str, count: Count) -> None:
        upload(self, path, key, count)
        found = objects.read("toy/1/.claim", 1000)
        if found is not None and b"another" not in found.data:
            objects.replace("toy/1/.claim", b"another", found.etag)

    monkeypatch.setattr(Objects, "upload", taken)
    with pytest.raises(BundleExists, match="was taken by another upload; try again"):
        publish(remote)
    assert remote.models() == []
    assert "toy/1/.claim" in keys(remote.place), "what the other one writes is not removed"


def test_long_files_go_and_come_in_pieces(
    remote: S3Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("export.bundle.s3.objects.PIECE_BYTES", 5 * 1024 * 1024)
    objects, content = Objects(S3Address.parse(remote.place)), os.urandom(12 * 1024 * 1024 + 7)
    (tmp_path / "sent").write_bytes(content)
    counted: list[int] = []
    objects.upload(tmp_path / "sent", "long", counted.append)
    digest = objects.download("long", tmp_path / "come", len(content), counted.append)
    assert (tmp_path / "come").read_bytes() == content
    assert digest == hashlib.sha256(content).hexdigest()
    assert sum(counted) == 2 * len(content)

    def stop(_: int) -> None:
        objects.close()

    with pytest.raises(StoreError, match="long: not brought, since its reader stops"):
        objects.download("long", tmp_path / "part", len(content), stop)
    assert (tmp_path / "part").stat().st_size == 5 * 1024 * 1024
    with pytest.raises(RepositoryError, match="long: longer than 1000 bytes"):
        objects.read("long", 1000)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_SECRET_ACCESS_KEY", "hush-hush", "the store refuses (403"),
        (
            "AWS_ENDPOINT_URL",
            "http://user:hush-hush@127.0.0.1:1",
            "127.0.0.1:1 does not answer; look at AWS_ENDPOINT_URL",
        ),
        ("AWS_CA_BUNDLE", "/nowhere.pem", "AWS_CA_BUNDLE /nowhere.pem: cannot be read"),
    ],
)
def test_what_the_store_refuses_is_a_line_without_secrets(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    assert lowpass.main(["models", "list", "--repository", bucket]) == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert said in complaint
    assert "hush" not in complaint
    assert KEY not in complaint


def test_a_bucket_that_is_not_there_is_named(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["models", "list", "--repository", "s3://absent-bucket/x"]) == 2
    assert "s3://absent-bucket/x: no such bucket; make it first" in capsys.readouterr().err


def test_without_the_driver_a_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "export.bundle.s3.repository", None)
    assert lowpass.main(["models", "list", "--repository", "s3://models/x"]) == 2
    assert "pip install 'lowpass[s3]'" in capsys.readouterr().err


def test_what_needs_no_store_does_not_import_its_driver() -> None:
    code = "import sys, export.bundle, serve.process.server; assert 'obstore' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_store_without_conditional_writes_is_written_all_the_same(
    remote: S3Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, refused = obstore.put, []

    def without(store: S3Store, key: str, content: Any, *, mode: Any = None, **rest: Any) -> Any:
        if mode is not None:
            refused.append(key)
            raise GenericError("Server returned non-2xx status code: 501 Not Implemented: <Code>NotImplemented</Code>")
        return put(store, key, content, **rest)

    monkeypatch.setattr(obstore, "put", without)
    publish(remote, label="stable")
    publish(remote, label="stable")
    assert (remote.versions("toy"), remote.labels("toy")) == (["1", "2"], {"stable": "2", "previous": "1"})
    assert {"toy/1/.claim", "toy/1/manifest.json", "toy/labels.json"} <= set(refused)
