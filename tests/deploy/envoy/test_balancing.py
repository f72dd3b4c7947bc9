"""Envoy before servers that serve the same models, all in processes of their own: what rolling restarts and a canary
that dies cost callers: nothing, whether they use the SDK or a plain gRPC client that tries nothing again.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from export.bundle import open_bundle
from export.bundle.repository import ModelRepository
from serve.client.recommender import RecommenderClient
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.pb.lowpass.v1 import recommender_pb2_grpc
from tests.deploy.envoy.proxies import Callers, Proxy, proxy, validate
from tests.kits.waiting import wait_for
from tests.serve.processes import ServerProcess, serving
from tests.serve.repositories import USERS, two_versions

FOLDER = Path(__file__).parents[3] / "deploy" / "envoy"
EVERYBODY = [f"u{row}" for row in range(USERS)]
PLAIN = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
OWN = PLAIN[:1]
WITHIN = 90.0


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_envoy_takes_every_file(path: Path) -> None:
    done = validate(path)
    assert done.returncode == 0, done.stderr


def configuration(servers: list[ServerProcess], canary: str) -> str:
    """What is shipped, with the addresses of this test."""
    text = (FOLDER / "balancing.yaml").read_text()
    hosts = {"server-a": servers[0].address, "server-b": servers[1].address, "server-canary": canary}
    for name, address in hosts.items():
        host, port = address.split(":")
        text, count = re.subn(f"address: {name}, port_value: 50051", f"address: {host}, port_value: {port}", text)
        assert count == 1, name
    for listening in ("0.0.0.0, port_value: 50050", "127.0.0.1, port_value: 9901"):
        assert text.count(listening) == 1
        text = text.replace(listening, "127.0.0.1, port_value: 0")
    return text


class Servers:
    """Servers of one repository that can be started again on their addresses.

    Args:
        options: Of each server.
    """

    def __init__(self, folder: Path, disk: ModelRepository, *options: str) -> None:
        self._folder, self._stack, self._started = folder, contextlib.ExitStack(), 0
        self._options = ["--repository", str(disk.root), "--max-wait", "0", "--threads", "16", *options]
        self.running: list[ServerProcess] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *options: str) -> ServerProcess:
        folder = self._folder / f"server-{self._started}"
        folder.mkdir()
        self._started += 1
        server = self._stack.enter_context(serving(folder, *self._options, *options))
        self.running.append(server)
        return server

    def restart(self, server: ServerProcess) -> ServerProcess:
        """Drain it, and start another one in its place."""
        assert server.terminate() == 0, server.log.read_text()
        self.running.remove(server)
        return self.start("--address", server.address)


class Load(Callers):
    """Callers that ask until they are told to stop: two of the SDK, two that are plain.

    Attributes:
        made: Lists that were asked for, by kind of call; each was right unless `faults` has it.
        faults: What failed or was wrong.
    """

    def __init__(self, proxied: Proxy, expected: dict[str, tuple[str, ...]]) -> None:
        self.made: Counter[str] = Counter()
        self._proxied, self._expected = proxied, expected
        self._lock = threading.Lock()
        super().__init__((self._ask_by_sdk, self._ask_plainly) * 2)

    def _until_stopped(self, ask: Callable[[str], None]) -> None:
        while not self._stop.is_set():
            for user in EVERYBODY:
                try:
                    ask(user)
                except Exception as error:
                    self.faults.append((time.monotonic(), user, error))

    def _ask_by_sdk(self) -> None:
        with RecommenderClient(self._proxied.address, timeout=20.0, options=OWN) as client:

            def ask(user: str) -> None:
                self._note("sdk", [user], [client.recommend(user, k=5)])
                if user == EVERYBODY[-1]:
                    self._note("sdk batch", EVERYBODY, client.batch_recommend(EVERYBODY, k=5))
                    self._note("sdk stream", EVERYBODY, list(client.stream_recommend(EVERYBODY, k=5)))

            self._until_stopped(ask)

    def _ask_plainly(self) -> None:
        with grpc.insecure_channel(self._proxied.address, PLAIN) as channel:
            stub: Any = recommender_pb2_grpc.RecommenderServiceStub(channel)  # type: ignore[no-untyped-call]

            def ask(user: str) -> None:
                request = pb.RecommendRequest(user_id=user, k=5)
                self._note("plain", [user], [stub.Recommend(request, timeout=20)])

            self._until_stopped(ask)

    def _note(self, kind: str, users: list[str], answers: list[Any]) -> None:
        wrong = [
            (kind, user, answer)
            for user, answer in zip(users, answers, strict=True)
            if tuple(getattr(answer, "item_ids", ())) != self._expected[user]
        ]
        with self._lock:
            self.made[kind] += len(users)
            self.faults += wrong


eventually = partial(wait_for, within=WITHIN)


@pytest.fixture
def disk(tmp_path: Path) -> ModelRepository:
    (tmp_path / "models").mkdir()
    return two_versions(tmp_path / "models")


@pytest.fixture
def expected(disk: ModelRepository) -> dict[str, tuple[str, ...]]:
    whole = open_bundle(disk.resolve("student", "1"))
    return {user: tuple(item.item_id for item in whole.recommend(user, 5)) for user in EVERYBODY}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options",
    [("--drain-wait", "0"), ("--drain-wait", "1.5", "--workers", "2")],
    ids=["one process that leaves at once", "two workers that are seen to leave"],
)
def test_a_rolling_restart_costs_callers_nothing(
    tmp_path: Path, disk: ModelRepository, expected: dict[str, tuple[str, ...]], options: tuple[str, ...]
) -> None:
    with Servers(tmp_path, disk, "--model", "student", *options) as servers:
        first = [servers.start(), servers.start()]
        text = configuration(first, canary="nowhere.invalid:50051")
        with proxy(tmp_path, text, servers=2) as proxied, Load(proxied, expected) as load:
            began = time.monotonic()
            for server in first:
                enough = load.made.total() + 200
                eventually(partial(lambda enough: load.made.total() > enough, enough), "nobody is answered")
                again = servers.restart(server)
                eventually(lambda: proxied.healthy == 2, "Envoy does not find it well again")
                eventually(partial(lambda again: handled(again) > 20, again), "who was started again has no share")
            took = time.monotonic() - began
        stopped = [event for server in first for event in server.events() if event["event"] == "stopped"]
    lists = f"{load.made.total()} lists {dict(load.made)} in {took:.0f} s"
    print(f"rolling restart, {' '.join(options)}: {lists}; {len(load.faults)} failed")  # noqa: T201 - asked for with -s
    assert load.faults == []
    assert min(load.made[kind] for kind in ("sdk", "sdk batch", "sdk stream", "plain")) > 0
    assert all(event["drained"] for event in stopped)


def handled(server: ServerProcess) -> float:
    return sum(map(float, re.findall(r"^lowpass_answers_total{.*} (\S+)$", server.scrape(), re.MULTILINE)))


@pytest.fixture
def with_canary(tmp_path: Path, disk: ModelRepository) -> Iterator[tuple[Proxy, ServerProcess]]:
    """The servers answer with version 1, the canary with version 2."""
    disk.set_label("student", "next", "2")
    with Servers(tmp_path, disk, "--drain-wait", "0") as servers:
        pair = [servers.start("--model", "student:1"), servers.start("--model", "student:1")]
        canary = servers.start("--model", "student:next")
        with proxy(tmp_path, configuration(pair, canary.address), servers=3) as proxied:
            yield proxied, canary


def test_a_header_or_a_share_meets_the_canary_and_one_that_dies_costs_nothing(
    with_canary: tuple[Proxy, ServerProcess],
) -> None:
    proxied, canary = with_canary
    with grpc.insecure_channel(proxied.address, PLAIN) as channel:
        stub: Any = recommender_pb2_grpc.RecommenderServiceStub(channel)  # type: ignore[no-untyped-call]

        def versions(count: int, *header: tuple[str, str]) -> Counter[str]:
            requests = [pb.RecommendRequest(user_id=f"u{number % USERS}", k=5) for number in range(count)]
            return Counter(stub.Recommend(request, metadata=header, timeout=20).version for request in requests)

        assert versions(30, ("x-lowpass-canary", "always")) == {"2": 30}
        assert versions(30, ("x-lowpass-canary", "never")) == {"1": 30}
        share = versions(600)["2"]
        assert 5 <= share <= 90, "5 % of 600"
        canary.process.kill()
        canary.process.wait()
        assert versions(60, ("x-lowpass-canary", "always")) == {"1": 60}, "the others answer for one that is dead"
        assert versions(200) == {"1": 200}
