"""Several workers on one port, over real sockets and processes, both transports: what is done to them, and what was
lost: nothing but what a killed worker had in hand, which a caller that tries again gets from another one.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

import lowpass
from export.bundle.repository import ModelRepository
from serve.client.errors import RecommenderError
from serve.client.recommender import RecommenderClient
from tests.kits.liveness import is_alive, is_stopped
from tests.kits.waiting import wait_for
from tests.serve.process.test_faults import TRANSPORTS
from tests.serve.processes import ServerProcess, serving
from tests.serve.repositories import two_versions

OWN = [("grpc.use_local_subchannel_pool", 1)]
"""A connection for each client."""
WITHIN = 60.0


@pytest.fixture(scope="module", params=TRANSPORTS)
def unharmed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for tests that end none of its workers."""
    folder = tmp_path_factory.mktemp("unharmed")
    (folder / "models").mkdir()
    with workers(folder, two_versions(folder / "models"), "--transport", request.param) as running:
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> ModelRepository:
    root = tmp_path / "models"
    root.mkdir()
    return two_versions(root)


@contextmanager
def workers(tmp_path: Path, disk: ModelRepository, *arguments: str, count: int = 2) -> Iterator[ServerProcess]:
    options = ["--repository", str(disk.root), "--model", "student", "--workers", str(count)]
    # However slow the machine is, nobody is refused for expecting to wait long.
    options += ["--drain-wait", "0", "--max-wait", "0"]
    with serving(tmp_path, *options, *arguments) as server:
        assert len(server.workers) == count
        try:
            yield server
        finally:
            if server.process.poll() is None:
                assert server.terminate() == 0, "after all of this it stops in order"


@pytest.fixture(params=TRANSPORTS)
def server(request: pytest.FixtureRequest, tmp_path: Path, disk: ModelRepository) -> Iterator[ServerProcess]:
    with workers(tmp_path, disk, "--transport", request.param) as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
def server_that_watches(
    request: pytest.FixtureRequest, tmp_path: Path, disk: ModelRepository
) -> Iterator[ServerProcess]:
    with workers(tmp_path, disk, "--transport", request.param, "--worker-timeout", "2") as running:
        yield running


def by_worker(server: ServerProcess | str, series: str, **labels: str) -> dict[str, float]:
    """Worker → sum of a series, in what is scraped now or was before."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(server if isinstance(server, str) else server.scrape()):
        for sample in family.samples:
            if sample.name == series and labels.items() <= sample.labels.items():
                worker = sample.labels["worker"]
                sums[worker] = sums.get(worker, 0.0) + sample.value
    return sums


def answered(server: ServerProcess) -> dict[str, float]:
    return by_worker(server, "lowpass_request_duration_seconds_count", code="OK", method="Recommend")


eventually = partial(wait_for, within=WITHIN)


def wait_restarted(server: ServerProcess, restarts: dict[str, float]) -> None:
    up = dict.fromkeys(restarts, 1.0)
    eventually(lambda: by_worker(server, "lowpass_worker_restarts_total") == restarts)
    eventually(lambda: by_worker(server, "lowpass_worker_up") == up)


def pids(server: ServerProcess) -> dict[int, int]:
    """Worker → its process now."""
    return {event["worker"]: event["pid"] for event in server.events() if event["event"] == "worker ready"}


def open_files(server: ServerProcess) -> int:
    return psutil.Process(server.process.pid).num_fds()


def ask_each_on_a_connection_of_its_own(server: ServerProcess, clients: int) -> Counter[str]:
    versions: Counter[str] = Counter()
    for number in range(clients):
        with RecommenderClient(server.address, timeout=10.0, options=OWN) as client:
            versions[client.recommend(f"u{number}", k=5).version] += 1
    return versions


@contextmanager
def asking(address: str, *, retries: bool, clients: int = 4, threads_each: int = 1) -> Iterator[Counter[str]]:
    """Ask all the time; counts answers as "OK" and failures by code."""
    counts: Counter[str] = Counter()
    lock, stop = threading.Lock(), threading.Event()

    def ask(client: RecommenderClient, number: int) -> None:
        while not stop.is_set():
            try:
                outcome = "OK" if len(client.recommend(f"u{number}", k=5)) == 5 else "short"
            except RecommenderError as error:
                outcome = error.code
                time.sleep(0.01)
            with lock:
                counts[outcome] += 1

    options = OWN if retries else [*OWN, ("grpc.enable_retries", 0)]
    with ExitStack() as stack:
        made = [stack.enter_context(RecommenderClient(address, 20.0, options=options)) for _ in range(clients)]
        pairs = [(client, number) for client in made for number in range(threads_each)]
        threads = [threading.Thread(target=ask, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        try:
            yield counts
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_requests_spread_over_the_workers_and_one_scrape_counts_all(unharmed: ServerProcess) -> None:
    before = sum(answered(unharmed).values())
    assert ask_each_on_a_connection_of_its_own(unharmed, 40) == {"1": 40}
    counts = answered(unharmed)
    assert sum(counts.values()) == before + 40, "lost: nothing"
    assert set(counts) == {"0", "1"}
    assert min(counts.values()) >= 4, "the kernel deals connections out by a hash"
    infos = by_worker(unharmed, "lowpass_bundle_info", model="student", version="1")
    assert infos == {"0": 1.0, "1": 1.0}


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_kill_9_of_workers_under_load(server: ServerProcess) -> None:
    """Lost to callers that try again: nothing. Others hear UNAVAILABLE until they are connected to another worker."""
    kills = 4
    with (
        asking(server.address, retries=True, clients=3, threads_each=4) as patient,
        asking(server.address, retries=False, clients=3) as hasty,
    ):
        for number in range(kills):
            enough = patient["OK"] + 50
            eventually(partial(lambda enough: patient["OK"] > enough, enough))
            os.kill(pids(server)[number % 2], signal.SIGKILL)
            wait_restarted(server, {"0": float((number + 2) // 2), "1": float((number + 1) // 2)})
    assert set(patient) == {"OK"}, "lost: nothing"
    assert set(hasty) <= {"OK", "UNAVAILABLE"}
    assert hasty["OK"] > 100
    ended = [event for event in server.events() if event["event"] == "worker ended"]
    assert [(event["worker"], event["signal"]) for event in ended] == [(n % 2, "SIGKILL") for n in range(kills)]


def test_series_after_a_crash_count_the_living_alone(server: ServerProcess) -> None:
    ask_each_on_a_connection_of_its_own(server, 30)
    before = answered(server)
    os.kill(server.workers[0], signal.SIGKILL)
    wait_restarted(server, {"0": 1.0, "1": 0.0})
    after = answered(server)
    assert after.get("0", 0.0) == 0, "a new process counts from 0, as Prometheus expects of it"
    assert after["1"] == before["1"], "the other's counts are its own"
    files = open_files(server)
    for restarts in (1.0, 2.0, 3.0):
        os.kill(pids(server)[1], signal.SIGKILL)
        wait_restarted(server, {"0": 1.0, "1": restarts})
    assert open_files(server) <= files + 1, "no file stays open"


def test_sigterm_under_load_loses_nothing_accepted(server: ServerProcess) -> None:
    with asking(server.address, retries=False, clients=8) as counts:
        eventually(lambda: counts["OK"] > 300)
        assert server.terminate() == 0
    stopped = [event for event in server.events() if event["event"] == "stopped"]
    assert [event["drained"] for event in stopped] == [True, True, True]
    handled = sum(event["handled"]["OK"] for event in stopped if "worker" in event)
    assert handled == counts["OK"], "lost: nothing that was accepted"
    assert set(counts) <= {"OK", "UNAVAILABLE", "CANCELLED"}, "cancelled: what had reached grpcio and was not begun"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_workers_of_a_killed_supervisor_drain_and_end(
    tmp_path: Path, disk: ModelRepository, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as sockets:
        monkeypatch.setenv("TMPDIR", sockets)
        options = ["--transport", transport, "--admin-address", "127.0.0.1:0"]
        with workers(tmp_path, disk, *options) as server, asking(server.address, retries=False) as counts:
            eventually(lambda: counts["OK"] > 100)
            (folder,) = Path(sockets).glob("lowpass-*")
            assert len(list(folder.iterdir())) == 4, "two of each worker"
            server.process.kill()
            server.process.wait()
            eventually(lambda: not any(is_alive(pid) for pid in server.workers))
        assert not folder.exists(), "no socket is left"
    stopped = [event for event in server.events() if event["event"] == "stopped"]
    assert sum(event["handled"].get("OK", 0) for event in stopped) == counts["OK"], "lost: nothing that was accepted"
    reasons = {event["signal"] for event in server.events() if event["event"] == "stopping"}
    assert reasons == {"the supervisor is gone"}


def test_a_second_server_on_the_port_is_refused(unharmed: ServerProcess, capfd: pytest.CaptureFixture[str]) -> None:
    free = ["--metrics-address", "127.0.0.1:0"]
    for more in ([], ["--workers", "2"]):
        assert lowpass.main(["serve", "--fake", "--address", unharmed.address, *free, *more]) == 2
        assert f"lowpass: error: --address {unharmed.address}" in capfd.readouterr().err
    assert ask_each_on_a_connection_of_its_own(unharmed, 4) == {"1": 4}


def test_workers_are_refused_on_the_port_of_a_single_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path, "--fake", "--drain-wait", "0") as single:
        words = ["serve", "--fake", "--workers", "2", "--metrics-address", "127.0.0.1:0"]
        assert lowpass.main([*words, "--address", single.address]) == 2
        said = capfd.readouterr().err
        assert f"--address {single.address}: cannot be bound (Address already in use)" in said
        assert "worker started" not in said
        assert single.terminate() == 0


def test_a_bad_bundle_is_told_once_as_by_a_single_server(
    disk: ModelRepository, capfd: pytest.CaptureFixture[str]
) -> None:
    (disk.resolve("student", "1") / "index.faiss").write_bytes(b"x")
    free = ["--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    words = ["serve", "--repository", str(disk.root), *free]
    code = lowpass.main(words)
    (told,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lowpass: error:")]
    assert lowpass.main([*words, "--workers", "3"]) == code == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("{")] == [told]
    assert [json.loads(line)["event"] for line in lines if line.startswith("{")].count("worker started") == 1


@pytest.mark.soak
def test_a_worker_that_cannot_be_started_again_is_tried_until_it_can(tmp_path: Path, disk: ModelRepository) -> None:
    with workers(tmp_path, disk) as server, asking(server.address, retries=True, clients=2) as counts:
        bundle, aside = disk.resolve("student", "1"), tmp_path / "aside"
        bundle.rename(aside)
        os.kill(server.workers[0], signal.SIGKILL)
        eventually(lambda: by_worker(server, "lowpass_worker_restarts_total")["0"] >= 2)
        assert by_worker(server, "lowpass_worker_up") == {"0": 0.0, "1": 1.0}
        aside.rename(bundle)
        eventually(lambda: by_worker(server, "lowpass_worker_up") == {"0": 1.0, "1": 1.0})
        assert set(counts) == {"OK"}, "lost: nothing"
    ended = [event for event in server.events() if event["event"] == "worker ended" and "restart_in" in event]
    waits = [event["restart_in"] for event in ended]
    assert waits == sorted(waits)
    assert len(set(waits)) == len(waits)
    assert any(event["event"] == "worker cannot start" for event in server.events())


@pytest.mark.soak
def test_a_worker_that_hangs_does_not_fail_the_scrape(tmp_path: Path, disk: ModelRepository) -> None:
    with workers(tmp_path, disk, "--worker-timeout", "0") as server:
        os.kill(server.workers[0], signal.SIGSTOP)
        try:
            eventually(lambda: is_stopped(server.workers[0]))
            scraped = server.scrape()
            assert by_worker(scraped, "lowpass_worker_up") == {"0": 0.0, "1": 1.0}
            assert by_worker(scraped, "lowpass_users") == {"1": 60.0}
        finally:
            os.kill(server.workers[0], signal.SIGCONT)
        eventually(lambda: by_worker(server, "lowpass_worker_up") == {"0": 1.0, "1": 1.0})


def test_a_worker_that_hangs_is_replaced_and_nothing_is_lost(server_that_watches: ServerProcess) -> None:
    server = server_that_watches
    (healthy, hung) = server.workers
    with asking(server.address, retries=True, clients=4, threads_each=2) as counts:
        eventually(lambda: counts["OK"] > 100)
        began = time.monotonic()
        os.kill(hung, signal.SIGSTOP)
        eventually(lambda: any(event["event"] == "worker hangs" for event in server.events()))
        wait_restarted(server, {"0": 0.0, "1": 1.0})
        took, before = time.monotonic() - began, counts["OK"]
        eventually(lambda: counts["OK"] > before + 100)
    print(f"a hung worker was replaced after {took:.1f} s; {dict(counts)}")  # noqa: T201 - asked for with -s
    assert set(counts) == {"OK"}, "lost: nothing"
    by_reason = {why: by_worker(server, "lowpass_worker_restarts_total", reason=why) for why in ("died", "hung")}
    assert by_reason == {"died": {"0": 0.0, "1": 0.0}, "hung": {"0": 0.0, "1": 1.0}}
    assert is_alive(healthy)
    assert pids(server)[0] == healthy, "the other was left alone"
    (told,) = [event for event in server.events() if event["event"] == "worker ended"]
    assert (told["pid"], told["signal"], told["reason"]) == (hung, "SIGKILL", "hung")


@pytest.mark.timeout(240)
def test_models_change_in_all_workers_and_stay_changed_in_those_that_are_restarted(
    tmp_path: Path, disk: ModelRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").mkdir()
    assert lowpass.main(["key", "operator", "--file", str(tmp_path / "keys" / "admin")]) == 0
    key = tmp_path / "keys" / "mine"
    key.write_text(capsys.readouterr().out.split()[-1])
    options = ["--admin-address", "127.0.0.1:0", "--admin-api-keys", str(tmp_path / "keys" / "admin")]
    with workers(tmp_path, disk, *options) as server:

        def models(*words: str, code: int = 0, shows: tuple[str, ...] = ("--api-key-file", str(key))) -> str:
            assert lowpass.main(["models", *words, "--target", server.admin_address, *shows]) == code
            said = capsys.readouterr()
            return said.out or said.err

        assert "UNAUTHENTICATED" in models("list", code=2, shows=())
        assert by_worker(server, "lowpass_bundle_info", version="2") == {}
        models("label", "student", "canary", "2")
        models("split", "student", "canary=0.5")
        both = {"0": 1.0, "1": 1.0}
        assert by_worker(server, "lowpass_bundle_info", model="student", version="2") == both
        with asking(server.address, retries=True, clients=3) as counts:
            os.kill(server.workers[1], signal.SIGKILL)
            wait_restarted(server, {"0": 0.0, "1": 1.0})
        assert set(counts) == {"OK"}
        assert by_worker(server, "lowpass_worker_restarts_total", reason="died") == {"0": 0.0, "1": 1.0}
        assert by_worker(server, "lowpass_bundle_info", model="student", version="2") == both
        listed = json.loads(models("list", "--json"))["versions"]
        assert [(row["version"], row["loaded"], row["differs"]) for row in listed] == [("1", True, ""), ("2", True, "")]
        arms = [versions_of(server, f"u{number}") for number in range(6)]
        assert all(len(versions) == 1 for versions in arms), "a user meets the same arm in every worker"
        assert len(set.union(*arms)) == 2
        assert "answers by default" in models("unload", "student", "1", code=2)
        models("label", "student", "stable", "2")
        models("rollback", "student")
        assert disk.labels("student") == {"stable": "1", "previous": "2", "canary": "2"}
    assert {event["event"] for event in server.events()}.isdisjoint({"worker differs"})


def versions_of(server: ServerProcess, user: str) -> set[str]:
    versions = set()
    for _ in range(4):
        with RecommenderClient(server.address, timeout=10.0, options=OWN) as client:
            versions.add(client.recommend(user, k=5).version)
    return versions


def test_a_moved_label_reaches_every_worker(tmp_path: Path, disk: ModelRepository) -> None:
    with workers(tmp_path, disk, "--watch", "0.05") as server, asking(server.address, retries=False) as counts:
        disk.set_label("student", "stable", "2")
        eventually(
            lambda: by_worker(server, "lowpass_bundle_info", model="student", version="2") == {"0": 1.0, "1": 1.0}
        )
        eventually(lambda: by_worker(server, "lowpass_bundle_info", model="student", version="1") == {})
        assert ask_each_on_a_connection_of_its_own(server, 12) == {"2": 12}
    assert set(counts) == {"OK"}, "lost: nothing"


def test_health_and_http_are_answered_by_all_workers(tmp_path: Path, disk: ModelRepository) -> None:
    options = ["--health-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    with workers(tmp_path, disk, *options) as server:
        for user in range(12):
            url = f"http://{server.http_address}/v1/recommend?user_id=u{user}&k=5"
            with closing(urllib.request.urlopen(url, timeout=10)) as answer:
                assert len(json.load(answer)["item_ids"]) == 5
            for address in (server.health_address, server.address):
                with grpc.insecure_channel(address, OWN) as channel:
                    stub: Any = health_pb2_grpc.HealthStub(channel)
                    status = stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status
                    assert status == health_pb2.HealthCheckResponse.SERVING
        counts = answered(server)
        assert sum(counts.values()) == 12
        assert set(counts) == {"0", "1"}
