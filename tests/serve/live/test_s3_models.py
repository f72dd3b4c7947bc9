"""A real server that follows a repository in a real object store, through what can happen to the store."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from export.bundle import Repository, open_repository
from export.bundle.manifest import MANIFEST_FILE
from export.bundle.s3.address import S3Address
from export.bundle.s3.objects import Objects
from export.bundle.versions import LABELS_FILE
from serve.client.recommender import RecommenderClient
from tests.export.bundle.s3.test_repository import spoil
from tests.kits.seaweedfs import KEY, SECRET, SeaweedFS
from tests.serve.processes import ServerProcess, serving
from tests.serve.repositories import publish

WATCH = 0.2
WITHIN = 60.0


@pytest.fixture
def remote(bucket: str, tmp_path: Path) -> Repository:
    """Versions 1 and 2 of "student", `stable` is 1; published by way of another mirror than the server's."""
    made = open_repository(bucket, mirror=tmp_path / "publisher")
    for seed in (1, 2):
        publish(tmp_path, factory="Flat", seed=seed, repository=made)
    made.set_label("student", "stable", "1", verify=False)
    return made


@pytest.fixture
def options(remote: Repository, tmp_path: Path) -> list[str]:
    mirror = ["--mirror", str(tmp_path / "mirror")]
    return ["--repository", remote.place, *mirror, "--watch", str(WATCH), "--drain-wait", "0"]


@pytest.fixture
def server(tmp_path: Path, options: list[str]) -> Iterator[ServerProcess]:
    with serving(tmp_path, *options) as running:
        yield running


def until(condition: Callable[[], object], what: str) -> float:
    """Wait until something holds, and return how many seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < WITHIN, f"not in time: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


def served(server: ServerProcess) -> str:
    """The version that answers."""
    with RecommenderClient(server.address, timeout=20.0) as client:
        answer = client.recommend("u1", k=5)
    assert len(answer) == 5
    return answer.version


def failures(server: ServerProcess) -> float:
    found = re.search(r'^lowpass_model_load_failures_total\{model="student"\} (\S+)', server.scrape(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def said(server: ServerProcess, message: str) -> list[dict[str, object]]:
    return [event for event in server.events() if event["event"] == message]


def mirrored(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "mirror" / "student").iterdir() if path.name.isdigit())


def test_a_label_that_moves_in_the_store_is_followed(
    server: ServerProcess, remote: Repository, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    assert served(server) == "1"
    assert mirrored(tmp_path) == ["1"]
    remote.set_label("student", "stable", "2", verify=False)
    record_property("label_to_served_seconds", until(lambda: served(server) == "2", "version 2 answers"))
    assert failures(server) == 0
    remote.rollback("student")
    until(lambda: served(server) == "1", "version 1 answers again")
    assert mirrored(tmp_path) == ["1", "2"]
    assert server.terminate() == 0
    assert SECRET not in server.log.read_text()
    assert KEY not in server.log.read_text()


def test_a_corrupted_a_half_and_an_escaping_version_displace_nothing(
    server: ServerProcess, remote: Repository, tmp_path: Path
) -> None:
    spoil(remote.place, "student", "2", "item_embeddings.npy")
    remote.set_label("student", "stable", "2", verify=False)
    until(lambda: failures(server) > 0, "a load that fails")
    objects = Objects(S3Address.parse(remote.place))
    manifest = json.loads((remote.fetch("student", "1") / MANIFEST_FILE).read_text())
    manifest["files"]["../../../escaped"] = manifest["files"].pop("index.faiss")
    objects.create("student/3/" + MANIFEST_FILE, json.dumps(manifest).encode())
    objects.create("student/4/popularity.npy", b"half")
    for version, reason in (("3", "is not a plain file name"), ("4", "no version 4")):
        move_by_hand(objects, version)
        until(lambda reason=reason: reason in server.log.read_text(), reason)  # type: ignore[misc]
    assert served(server) == "1"
    errors = [str(event["error"]) for event in server.events() if "error" in event]
    assert any(
        f"{remote.place}/student/2/item_embeddings.npy: SHA-256 is not the manifest's" in each for each in errors
    )
    assert mirrored(tmp_path) == ["1"]
    assert not (tmp_path / "escaped").exists()
    assert not list((tmp_path / "mirror" / "student").glob(".*.draft"))
    move_by_hand(objects, "1")
    publish(tmp_path, factory="Flat", seed=5, repository=remote, version="5")
    remote.set_label("student", "stable", "5", verify=False)
    until(lambda: served(server) == "5", "what is good is served once more")


def move_by_hand(objects: Objects, version: str) -> None:
    """Set `stable` as nobody should: without a look at what it points to."""
    before = objects.read(f"student/{LABELS_FILE}", 1000)
    assert before is not None
    assert objects.replace(
        before_key := f"student/{LABELS_FILE}", json.dumps({"stable": version}).encode(), before.etag
    )
    assert objects.read(before_key, 1000) != before


def test_a_server_outlives_its_store_and_starts_without_it(
    seaweedfs: SeaweedFS, options: list[str], remote: Repository, tmp_path: Path
) -> None:
    with serving(tmp_path, *options) as server:
        assert served(server) == "1"
        seaweedfs.kill()
        out = "repository out of reach, serving from its mirror"
        until(lambda: said(server, out), "a line that says it is stale")
        before = failures(server)
        until(lambda: failures(server) > before, "each look that fails is counted")
        assert served(server) == "1"
        assert len(said(server, out)) == 1
        assert server.terminate() == 0
    (tmp_path / "ready.json").unlink()
    with serving(tmp_path, *options) as server:
        assert served(server) == "1"
        (line,) = said(server, out)
        assert "does not answer; look at AWS_ENDPOINT_URL" in str(line["error"])
        seaweedfs.start()
        until(lambda: said(server, "repository within reach again"), "the store is back")
        remote.set_label("student", "stable", "2", verify=False)
        until(lambda: served(server) == "2", "version 2 answers")


def test_a_restart_beside_a_bad_stable_serves_the_last_good_one(
    options: list[str], remote: Repository, tmp_path: Path
) -> None:
    with serving(tmp_path, *options) as server:
        assert served(server) == "1"
        assert server.terminate() == 0
    spoil(remote.place, "student", "2", "popularity.npy")
    remote.set_label("student", "stable", "2", verify=False)
    (tmp_path / "ready.json").unlink()
    with serving(tmp_path, *options) as server:
        assert served(server) == "1"
        (line,) = said(server, "serving the last good version from the mirror")
        assert (line["version"], "popularity.npy" in str(line["error"])) == ("1", True)
        assert failures(server) > 0


def test_a_first_start_without_the_store_says_so_in_a_line(
    seaweedfs: SeaweedFS, options: list[str], tmp_path: Path
) -> None:
    seaweedfs.kill()
    with pytest.raises(AssertionError, match="does not answer; look at AWS_ENDPOINT_URL"), serving(tmp_path, *options):
        pass
    (complaint,) = (tmp_path / "serve.log").read_text().splitlines()
    assert complaint.startswith("lowpass: error: s3://")


def test_workers_share_a_mirror_and_all_follow(remote: Repository, options: list[str], tmp_path: Path) -> None:
    with serving(tmp_path, *options, "--workers", "2") as server:
        remote.set_label("student", "stable", "2", verify=False)
        of_second = re.compile(r'^lowpass_bundle_info\{[^}]*version="2"[^}]*\} 1', re.MULTILINE)
        until(lambda: len(of_second.findall(server.scrape())) == 2, "both workers serve version 2")
        assert served(server) == "2"
        assert server.terminate() == 0
    brought = [event for event in server.events() if str(event["event"]).startswith("mirrored")]
    assert len(brought) == 2, "each version once, whichever worker brought it"
