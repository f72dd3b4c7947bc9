"""A server whose items are in an engine that is slow, gone, killed and back: all calls end in time, and with a name."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest

from export.build.engine_load import load_version
from export.bundle import ModelRepository, open_bundle
from export.bundle.engines import EngineAddress
from serve.client.errors import RecommenderError, ServerUnavailable, TimeUp
from serve.client.recommender import RecommenderClient
from serve.live import loader
from serve.process.options import ServerOptions
from serve.process.server import Server as LowpassServer
from serve.rpc.pb.lowpass.v1 import recommender_pb2_grpc
from tests.kits.engines import Proxy, Server
from tests.serve.process.test_server import values
from tests.serve.repositories import two_versions

TIMEOUT = 0.5
GENEROUS = 20.0


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    return two_versions(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def server(stored: ModelRepository, engine_server: Server, proxy: Proxy) -> Iterator[LowpassServer]:
    url = proxy.url("served")
    for version in ("1", "2"):
        bundle = open_bundle(stored.resolve("student", version))
        load_version(stored, bundle, EngineAddress.parse(url), kind="flat")
    options = ServerOptions(
        repository=stored.root,
        indexes=(url,),
        index_timeout=TIMEOUT,
        address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        drain_wait=0.0,
    )
    made = LowpassServer(options)
    made.start()
    yield made
    proxy.mend()
    engine_server.start()
    made.stop()


@pytest.fixture
def ask(server: LowpassServer) -> Iterator[Callable[..., Any]]:
    """Asks once, without the retries of the SDK; returns how long it took, and the answer or the error."""
    with (
        RecommenderClient(server.address) as client,
        grpc.insecure_channel(server.address, options=[("grpc.enable_retries", 0)]) as channel,
    ):
        client.wait_ready(GENEROUS)
        client._stub = recommender_pb2_grpc.RecommenderServiceStub(channel)  # type: ignore[no-untyped-call]

        def once(timeout: float = GENEROUS, **options: Any) -> tuple[float, Any]:
            client.timeout = timeout
            started = monotonic()
            try:
                return monotonic() - started, client.recommend("u3", k=7, **options)
            except RecommenderError as error:
                return monotonic() - started, error

        yield once


def series(server: LowpassServer) -> Any:
    from prometheus_client import generate_latest

    return values(generate_latest(server.metrics.registry).decode())


def errors(server: LowpassServer) -> Counter[str]:
    found: Counter[str] = Counter()
    for (name, labels), value in series(server).items():
        if name == "lowpass_index_errors_total":
            assert dict(labels)["index"].endswith("/served")
            found[dict(labels)["reason"]] += int(value)
    return found


def breaker(server: LowpassServer) -> float:
    (value,) = [value for (name, _), value in series(server).items() if name == "lowpass_index_breaker_open"]
    return float(value)


def until_answered(ask: Callable[..., Any]) -> Any:
    end = monotonic() + 60
    while True:
        _, outcome = ask()
        if not isinstance(outcome, Exception):
            return outcome
        assert isinstance(outcome, ServerUnavailable), outcome
        assert monotonic() < end
        time.sleep(0.05)


def test_slow_then_quick_again(server: LowpassServer, ask: Callable[..., Any], proxy: Proxy) -> None:
    _, expected = ask()
    proxy.delay = 5.0
    outcomes = []
    for _ in range(6):
        started = monotonic()
        outcomes.append(ask()[1])
        assert monotonic() - started < TIMEOUT + 2.0
    assert all(isinstance(outcome, ServerUnavailable) for outcome in outcomes)
    assert {outcome.reason for outcome in outcomes} == {"INDEX_UNAVAILABLE"}
    assert all(0 < outcome.retry_after <= 1 for outcome in outcomes)
    assert "no answer within 0.5 s" in str(outcomes[0])
    assert "left alone for a moment" in str(outcomes[-1])
    assert errors(server) == {"timeout": 5, "breaker_open": 1}
    assert breaker(server) == 1
    # What needs no candidates is answered all the while.
    assert ask(exact=True)[1].item_ids == expected.item_ids
    assert ask(allow=["i1", "i2"])[1].item_ids
    proxy.mend()
    assert until_answered(ask).item_ids == expected.item_ids
    assert breaker(server) == 0


def test_a_callers_own_deadline_is_kept(server: LowpassServer, ask: Callable[..., Any], proxy: Proxy) -> None:
    _, expected = ask()
    proxy.delay = 5.0
    started = monotonic()
    _, outcome = ask(timeout=0.25)
    assert monotonic() - started < 2.0
    assert isinstance(outcome, TimeUp)
    end = monotonic() + 5  # the server ends its own part of it, too
    while server.admission.in_flight and monotonic() < end:
        time.sleep(0.01)
    assert server.admission.in_flight == 0
    assert errors(server) == {"timeout": 1}
    proxy.mend()
    assert until_answered(ask).item_ids == expected.item_ids


def test_killed_under_load_and_started_again(
    server: LowpassServer, ask: Callable[..., Any], engine_server: Server
) -> None:
    _, expected = ask()
    stop = threading.Event()
    outcomes: list[tuple[float, Any]] = []

    def keep_asking() -> None:
        with RecommenderClient(server.address, timeout=5.0) as client:
            while not stop.is_set():
                started = monotonic()
                try:
                    outcome: Any = client.recommend("u3", k=7)
                except RecommenderError as error:
                    outcome = error
                outcomes.append((monotonic() - started, outcome))
                time.sleep(0.005)

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    engine_server.kill()
    end = monotonic() + 30
    while not breaker(server) and monotonic() < end:
        time.sleep(0.02)
    assert breaker(server) == 1
    engine_server.start()
    until_answered(ask)
    back = len(outcomes)
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    kinds = Counter(type(outcome).__name__ for _, outcome in outcomes)
    assert set(kinds) == {"RecommendationList", "ServerUnavailable"}
    assert all(seconds < 5.0 for seconds, _ in outcomes)
    assert all(outcome.item_ids == expected.item_ids for _, outcome in outcomes if not isinstance(outcome, Exception))
    # Beside those that were under way when it came back, none failed any more.
    assert all(not isinstance(outcome, Exception) for _, outcome in outcomes[back + len(threads) :])
    assert breaker(server) == 0


def test_a_batch_says_of_each_entry_why_it_has_no_answer(
    server: LowpassServer, ask: Callable[..., Any], proxy: Proxy
) -> None:
    proxy.cut()
    with RecommenderClient(server.address, timeout=GENEROUS) as client:
        found = client.batch_recommend(["u1", "nobody", "u2"], k=5)
        listed = client.batch_recommend(["u1", "u2"], k=5, allow=["i1", "i2", "i3"])
    assert [getattr(outcome, "reason", "") for outcome in found] == [
        "INDEX_UNAVAILABLE",
        "UNKNOWN_USER",
        "INDEX_UNAVAILABLE",
    ]
    assert all(not isinstance(outcome, Exception) for outcome in listed)


def test_a_load_beside_requests_fails_while_the_engine_is_away_and_what_is_served_goes_on(
    server: LowpassServer, ask: Callable[..., Any], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "give_way", lambda: None)  # else a busy machine makes it wait for all others
    _, expected = ask()
    manager = server._manager
    assert manager is not None
    proxy.cut()
    with pytest.raises(Exception, match=r"://127\.0\.0\.1") as refused:
        manager.load("student", "2")
    assert type(refused.value).__name__ == "ModelUnusable"
    assert server.store.versions("student").default == "1"
    proxy.mend()
    assert until_answered(ask).item_ids == expected.item_ids
    manager.load("student", "2")
    assert ask(model="student:2")[1].version == "2"


def test_an_engine_that_is_not_there_at_the_start_is_told_in_a_line(tmp_path: Path, stored: ModelRepository) -> None:
    import subprocess
    import sys

    words = ["--repository", str(stored.root), "--address", "127.0.0.1:0", "--metrics-address", ""]
    done = subprocess.run(
        [sys.executable, "-m", "lowpass", "serve", *words, "--index", "milvus://ann:s3cret@127.0.0.1:1/items"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "milvus://127.0.0.1:1/items: UNAVAILABLE" in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr
