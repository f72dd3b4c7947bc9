from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from export.bundle import Bundle, TruncatedIndex, UnknownLabel, open_bundle
from export.bundle.repository import ModelRepository
from serve.answers.errors import AddressUnavailable, NothingToServe
from serve.answers.limits import Limits
from serve.client.admin import AdminClient
from serve.client.errors import NotFoundByServer, RecommenderError
from serve.client.recommender import RecommenderClient
from serve.process.options import ServerOptions
from serve.process.server import Server
from tests.serve.processes import ServerProcess, serving
from tests.serve.repositories import publish


def local(**options: Any) -> ServerOptions:
    return ServerOptions(**{"address": "127.0.0.1:0", "metrics_address": "127.0.0.1:0", "drain_wait": 0.0, **options})


Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape_when_idle(server: ServerProcess) -> Series:
    """A caller has its answer a moment before the server counts the request as done."""
    give_up = time.monotonic() + 10
    while (series := values(server.scrape()))["lowpass_requests_in_flight", frozenset()] and time.monotonic() < give_up:
        time.sleep(0.01)
    return series


def test_answers_another_process_and_reports_what_it_did(tmp_path: Path, repository: ModelRepository) -> None:
    options = ["--repository", str(repository.root), "--model", "student", "--model", "student:canary"]
    with serving(tmp_path, *options, "--model", "teacher", "--drain-wait", "0") as server:
        with RecommenderClient(server.address) as client:
            info = client.info()
            answers = [client.recommend(f"u{user}", k=20, exact=True) for user in range(10)]
            other = client.recommend("u0", k=20, model="student:canary", include_titles=True)
            folded = client.recommend(history=["i1", "i2", "i3"], k=5)
            popular = client.recommend("nobody", allow_fallback=True)
            similar = client.similar_items("i5", k=3, model="teacher")
            with pytest.raises(NotFoundByServer):
                client.recommend("nobody")
        series = scrape_when_idle(server)
        assert server.terminate() == 0
    served = [(model.name, model.version, model.labels, model.is_default) for model in info.models]
    assert served == [
        ("student", "2", ("stable",), True),
        ("student", "1", ("canary",), False),
        ("teacher", "1", (), False),
    ]
    bundle = open_bundle(repository.resolve("student"))
    for user, answer in enumerate(answers):
        scores = bundle.item_embeddings @ bundle.user_embeddings[user]
        scores[bundle.seen(user)] = -np.inf
        expected = np.argsort(-scores, kind="stable")[:20]
        assert list(answer.item_ids) == bundle.item_ids.take(expected)
        np.testing.assert_allclose(answer.scores, scores[expected], rtol=1e-4)
        assert 0 < answer.timings_us["search"] <= answer.timings_us["total"]
    assert (other.version, other.titles[0]) == ("1", f"Title of {other.item_ids[0][1:]}")
    assert (folded.source, popular.source, similar.source) == ("fold_in", "popular", "similar")
    check_series(series, bundle)


def check_series(series: Series, bundle: Bundle) -> None:
    """What the calls of the test above must have left."""

    def count(name: str, **labels: str) -> float:
        return series[f"lowpass_{name}", frozenset(labels.items())]

    student, teacher = {"model": "student", "version": "2"}, {"model": "teacher", "version": "1"}
    requests = "request_duration_seconds_count"
    assert count(requests, method="Recommend", code="OK", **student) == 12
    assert count(requests, method="Recommend", code="OK", model="student", version="1") == 1
    assert count(requests, method="Recommend", code="NOT_FOUND", **student) == 1
    assert count(requests, method="SimilarItems", code="OK", **teacher) == 1
    assert count("stage_duration_seconds_count", stage="search", model="student") == 13
    assert count("answers_total", model="student", source="personal") == 11
    assert count("requests_in_flight") == 0
    assert count("model_quality", metric="kept_recall", **student) == 0.75
    assert count("model_quality", metric="recall@20", **teacher) == 0.5
    assert count("items", **student) == 400
    assert count("users", **student) == 60
    assert count("index_bytes", **student) == bundle.index_path.stat().st_size
    assert count("index_ann_recall", **student) == 0.99
    assert 0 < count("bundle_load_seconds", **student) < 30
    assert series["process_resident_memory_bytes", frozenset()] > 1e6
    infos = [dict(labels) for name, labels in series if name == "lowpass_bundle_info"]
    assert {info["bundle_id"] for info in infos} >= {bundle.manifest.bundle_id}
    below_a_millisecond = [
        float(dict(labels)["le"]) for name, labels in series if name == "lowpass_stage_duration_seconds_bucket"
    ]
    assert len({bound for bound in below_a_millisecond if bound < 1e-3}) >= 10


def test_sigterm_under_load_loses_nothing_accepted(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    lock, go_on = threading.Lock(), threading.Event()
    go_on.set()

    def load(address: str, number: int) -> None:
        own = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with RecommenderClient(address, timeout=10.0, options=own) as client:
            while go_on.is_set():
                try:
                    client.recommend(f"user-{number}", k=5)
                    outcome = "OK"
                except RecommenderError as error:
                    outcome = error.code
                with lock:
                    counts[outcome] += 1
                if outcome != "OK":
                    return

    with serving(tmp_path, "--fake", "--drain-wait", "0.2") as server:
        threads = [threading.Thread(target=load, args=(server.address, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        while counts["OK"] < 300:
            time.sleep(0.01)
        code = server.terminate()
        go_on.clear()
        for thread in threads:
            thread.join()
        (stopped,) = [event for event in server.events() if event["event"] == "stopped"]
    assert code == 0
    assert stopped["drained"] is True
    assert set(counts) <= {"OK", "UNAVAILABLE"}
    assert stopped["handled"]["OK"] == counts["OK"] >= 300
    assert set(stopped["handled"]) <= {"OK", "UNAVAILABLE"}


def test_sigterm_waits_a_probe_period_while_still_answering(tmp_path: Path) -> None:
    with serving(tmp_path, "--fake", "--drain-wait", "0.6") as server, RecommenderClient(server.address) as client:
        client.recommend("user-1")
        server.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.2)
        assert client.recommend("user-1").item_ids
        assert server.process.wait(10) == 0


def test_two_servers_cannot_share_a_port(tmp_path: Path) -> None:
    with serving(tmp_path, "--fake", "--drain-wait", "0") as server:
        with pytest.raises(AddressUnavailable, match="--address"):
            Server(local(address=server.address)).start()
        with pytest.raises(AddressUnavailable, match="--metrics-address"):
            Server(local(metrics_address=server.metrics_address)).start()


def test_a_failed_start_frees_both_ports(tmp_path: Path) -> None:
    server = Server(local(repository=tmp_path))
    with pytest.raises(NothingToServe, match="lowpass export"):
        server.start()
    again = Server(local(address=server.address, metrics_address=server.metrics_address))
    again.start()
    assert again.stop() is True


def test_a_wrong_label_or_bundle_stops_the_start(tmp_path: Path, repository: ModelRepository) -> None:
    with pytest.raises(UnknownLabel):
        Server(local(repository=repository.root, models=["student:nothing"])).start()
    path = publish(tmp_path, "broken") / "index.faiss"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(TruncatedIndex):
        Server(local(repository=tmp_path, verify=False)).start()


def test_the_same_version_named_twice_is_loaded_once(repository: ModelRepository) -> None:
    server = Server(local(repository=repository.root, models=["student", "student:stable", "student:2"]))
    server.start()
    assert [model.summary.version for model in server.store.models] == ["2"]
    server.stop()


def test_an_open_address_is_announced_loudly(tmp_path: Path) -> None:
    with serving(tmp_path, "--fake", "--drain-wait", "0", "--address", "0.0.0.0:0") as server:
        assert server.terminate() == 0
        warnings = [event for event in server.events() if event["level"] == "warning"]
    assert [event["address"] for event in warnings] == [server.address]
    assert "TLS" in warnings[0]["event"]


BLOCK_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "distill", "onnx", "scipy", "pyarrow"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, NoTorch())
"""


def test_serving_never_imports_torch(repository: ModelRepository) -> None:
    program = f"""{BLOCK_TORCH}
import lowpass, serve.commands.serve
from pathlib import Path
from serve import Server, ServerOptions
from serve.client import RecommenderClient
options = ServerOptions(
    repository=Path(sys.argv[1]), address="127.0.0.1:0", metrics_address="127.0.0.1:0", drain_wait=0.0
)
server = Server(options)
server.start()
with RecommenderClient(server.address) as client:
    print(client.recommend(history=["i1"]).source)
server.stop()
assert not [name for name in sys.modules if name.split(".")[0] in ("torch", "distill", "onnx", "scipy")]
"""
    command = [sys.executable, "-W", "error", "-c", program, str(repository.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "fold_in"


def test_the_command_line_starts_without_numpy() -> None:
    program = (
        "import lowpass, serve.commands.serve, sys; assert 'numpy' not in sys.modules; assert 'grpc' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_requests_before_ready_are_unavailable_not_unknown() -> None:
    server = Server(local())
    address = server._transport.bind("127.0.0.1:0")
    server._transport.start()
    with (
        RecommenderClient(address, options=[("grpc.enable_retries", 0)]) as client,
        pytest.raises(RecommenderError) as caught,
    ):
        client.recommend("user-1")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE.name, "NOT_READY")
    server._transport.stop(1.0)


def test_a_server_whose_threads_are_at_the_same_calls_past_their_deadline_is_stuck() -> None:
    server, seen = Server(local(threads=2, limits=Limits(max_deadline=0.5))), []
    for _ in range(2):
        seen.append(server.is_stuck)
        server.admission.enter()
    seen.append(server.is_stuck)
    time.sleep(0.6)
    seen.append(server.is_stuck)
    server.admission.leave()
    seen.append(server.is_stuck)
    assert seen == [False, False, False, True, False], "only once no call has ended in all its time"


def test_a_stream_may_hold_a_single_thread_for_longer_than_other_calls() -> None:
    server = Server(local(threads=1, limits=Limits(max_deadline=0.01)))
    server.admission.enter()
    time.sleep(0.02)
    assert not server.is_stuck


def test_loads_give_way_to_requests_once_there_can_be_some(
    repository: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave_way: list[bool] = []
    monkeypatch.setattr("serve.live.loader.give_way", lambda: gave_way.append(True))
    options = local(repository=repository.root, models=("student:1",), admin_address="127.0.0.1:0")
    server = Server(options)
    server.start()
    try:
        assert gave_way == []
        with AdminClient(server.admin_address, 60.0) as admin:
            admin.load("student", "2")
        assert gave_way == [True]
    finally:
        server.stop()
