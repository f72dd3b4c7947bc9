"""Models change under a real server in a process of its own, while real clients ask."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

import lowpass
from export.bundle.repository import ModelRepository
from serve.client.admin import AdminClient
from serve.client.errors import InvalidQuery, NotFoundByServer, NotPossible, RecommenderError
from serve.client.recommender import RecommenderClient
from tests.serve.processes import ServerProcess, serving
from tests.serve.repositories import publish, two_versions

SWAPS = 100


@pytest.fixture
def disk(tmp_path: Path) -> ModelRepository:
    root = tmp_path / "models"
    root.mkdir()
    publish(root, "teacher", factory="Flat", seed=3)
    return two_versions(root)


@pytest.fixture
def server(tmp_path: Path, disk: ModelRepository) -> Iterator[ServerProcess]:
    options = ["--repository", str(disk.root), "--admin-address", "127.0.0.1:0", "--drain-wait", "0"]
    with serving(tmp_path, *options) as running:
        yield running
        assert running.terminate() == 0


@contextmanager
def load(address: str, clients: int = 4) -> Iterator[Counter[str]]:
    """Ask all the time, without retries; counts versions that answered and codes of failures."""
    counts: Counter[str] = Counter()
    lock, stop = threading.Lock(), threading.Event()

    def ask(number: int) -> None:
        own = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with RecommenderClient(address, timeout=10.0, options=own) as client:
            while not stop.is_set():
                try:
                    answer = client.recommend(f"u{number}", k=5)
                    outcome = f"version {answer.version}" if len(answer) == 5 else "short"
                except RecommenderError as error:
                    outcome = error.code
                with lock:
                    counts[outcome] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def resources(server: ServerProcess) -> tuple[int, int, int]:
    """Private memory in bytes, threads, and open files of the server."""
    process = psutil.Process(server.process.pid)
    return process.memory_full_info().uss, process.num_threads(), process.num_fds()


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_a_hundred_reloads_under_load_fail_nobody_and_leave_nothing_behind(server: ServerProcess) -> None:
    with AdminClient(server.admin_address) as admin, load(server.address) as counts:
        for number in range(10):
            admin.set_label("student", "stable", "21"[number % 2])
        before = resources(server)
        for number in range(SWAPS):
            admin.set_label("student", "stable", "21"[number % 2])
        after = resources(server)
    assert set(counts) == {"version 1", "version 2"}
    assert min(counts.values()) > 20
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2] + 1
    assert after[0] < before[0] + 16e6, "a hundred bundles would take more"


def test_a_bundle_gone_bad_or_missing_on_disk_changes_nothing(server: ServerProcess, disk: ModelRepository) -> None:
    path = disk.resolve("student", "2")
    with AdminClient(server.admin_address) as admin, load(server.address) as counts:
        (path / "index.faiss").write_bytes(b"x")
        with pytest.raises(NotPossible, match=r"index\.faiss"):
            admin.set_label("student", "stable", "2")
        with pytest.raises(NotFoundByServer):
            admin.load("student", "9")
        with pytest.raises(NotFoundByServer, match="previous"):
            admin.rollback("student")
        with pytest.raises(InvalidQuery) as caught:
            admin.load("")
        (failed,) = [row for row in admin.models() if row.model == "student" and row.version == "2"]
    assert set(caught.value.violations) == {"model"}
    assert "index.faiss" in failed.error
    assert set(counts) == {"version 1"}
    assert any(event["event"] == "load failed" for event in server.events())


def test_a_split_is_stable_per_user_and_counted_by_version(server: ServerProcess, disk: ModelRepository) -> None:
    disk.set_label("student", "canary", "2")
    with AdminClient(server.admin_address) as admin, RecommenderClient(server.address) as client:
        admin.set_split("student", {"canary": 0.4})
        versions = [client.recommend(f"u{user}").version for user in range(60)]
        assert versions == [client.recommend(f"u{user}").version for user in range(60)]
        batch = client.batch_recommend([f"u{user}" for user in range(60)])
        assert [getattr(answer, "version", "") for answer in batch] == versions
        assert 10 < versions.count("2") < 40
        admin.set_split("student", {})
        assert {client.recommend(f"u{user}").version for user in range(60)} == {"1"}


def test_a_shadow_is_measured_and_never_seen(server: ServerProcess) -> None:
    with AdminClient(server.admin_address) as admin, RecommenderClient(server.address) as client:
        admin.set_shadow("student", "teacher", share=1.0)
        answers = [client.recommend(f"u{user}", k=10) for user in range(40)]
        assert {answer.model for answer in answers} == {"student"}
        give_up = time.monotonic() + 10
        while (compared := shadowed(server, "requests_total", outcome="compared")) < 1 and time.monotonic() < give_up:
            time.sleep(0.05)
        admin.set_shadow("student")
    assert compared >= 1
    assert 0 <= shadowed(server, "overlap_sum") < shadowed(server, "overlap_count")


def shadowed(server: ServerProcess, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(server.scrape()):
        for sample in family.samples:
            if sample.name == f"lowpass_shadow_{name}" and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


def test_the_command_line_changes_a_running_server(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    def models(*words: str) -> str:
        code = lowpass.main(["models", *words, "--target", server.admin_address])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    assert "student:1" in models("label", "student", "stable", "2")
    rows = {
        row["version"]: row for row in json.loads(models("list", "--json"))["versions"] if row["model"] == "student"
    }
    assert (rows["2"]["is_default"], rows["1"]["loaded"]) == (True, False)
    assert rows["2"]["labels"] == ["stable"]
    assert rows["1"]["labels"] == ["previous"]
    models("rollback", "student")
    assert {row["model"] for row in json.loads(models("list", "teacher", "--json"))["versions"]} == {"teacher"}
    assert lowpass.main(["models", "list", "nobody", "--target", server.admin_address]) == 2
    assert "nobody: no such model" in capsys.readouterr().err
    assert "canary 20.0%" in (models("label", "student", "canary", "2") and models("split", "student", "canary=0.2"))
    assert "no split" in models("split", "student")
    assert "teacher answers 50.0% again" in models("shadow", "student", "teacher", "--share", "0.5")
    assert "student:2" in models("load", "student", "2")
    assert "unloaded" in models("unload", "student", "2")
    assert lowpass.main(["models", "unload", "student", "1", "--target", server.admin_address]) == 2
    assert "answers by default" in capsys.readouterr().err
    assert lowpass.main(["models", "split", "student", "canary", "--target", server.admin_address]) == 2


def test_start_options_split_shadow_and_watch(tmp_path: Path, disk: ModelRepository) -> None:
    disk.set_label("student", "canary", "2")
    options = ["--repository", str(disk.root), "--drain-wait", "0", "--split", "student:canary=1.0"]
    options += ["--shadow", "student:teacher=1.0", "--watch", "0.05"]
    with serving(tmp_path, *options) as server, RecommenderClient(server.address) as client:
        assert client.recommend("u1").version == "2"
        disk.set_label("student", "canary", "1")
        give_up = time.monotonic() + 10
        while client.recommend("u1").version != "1" and time.monotonic() < give_up:
            time.sleep(0.02)
        assert client.recommend("u1").version == "1"
        assert server.terminate() == 0
