"""Servers where little is granted: few descriptors, no rights, nothing to write to, and nobody who reads the log."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from export.bundle.repository import ModelRepository
from serve.client.recommender import RecommenderClient
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from tests.kits.authority import Authority
from tests.serve.process.test_faults import RECOMMEND, TRANSPORTS
from tests.serve.processes import READY_WITHIN, serving

NOBODY = 65534
FEW_FILES = ("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh")
# No rights but to read: the interpreter may lie where only its owner looks.
WITHOUT_RIGHTS = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                  "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
                  "--bounding-set=-all,+dac_read_search")  # fmt: skip


def answers(address: str) -> None:
    with RecommenderClient(address, timeout=30.0) as client:
        assert len(client.recommend("u1", k=5)) == 5


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sixty_four_descriptors_and_a_hundred_idle_scrapers(
    repository: ModelRepository, tmp_path: Path, transport: str
) -> None:
    words = ["--repository", str(repository.root), "--model", "student", "--drain-wait", "0", "--transport", transport]
    with serving(tmp_path, *words, before=FEW_FILES) as server:
        host, _, port = server.metrics_address.rpartition(":")
        idle = [socket.create_connection((host, int(port)), timeout=10) for _ in range(100)]
        began = time.monotonic()
        for _ in range(5):
            answers(server.address)
        assert time.monotonic() - began < 20
        with closing(HTTPConnection(server.metrics_address, timeout=10)) as connection:
            connection.request("HEAD", "/metrics")
            assert connection.getresponse().status == 200
        assert 'code="OK",method="Recommend"' in server.scrape()
        files = [str(entry.readlink()) for entry in Path(f"/proc/{server.process.pid}/fd").iterdir()]
        assert len(files) < 50
        assert not [name for name in files if "telemetry" in name.lower() or "/.cache/" in name], "nothing is sent home"
        for each in idle:
            each.close()
        assert server.terminate() == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody finds; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def untouchable(open_folder: Path, repository: ModelRepository) -> ModelRepository:
    """A repository that its readers may not write to."""
    root = open_folder / "models"
    shutil.copytree(repository.root, root)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return ModelRepository(root)


@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can become somebody without rights, and needs setpriv of util-linux for it",
)
def test_somebody_without_rights_serves_what_nobody_may_change(untouchable: ModelRepository, open_folder: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in untouchable.root.rglob("*"))
    out = open_folder / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    words = ["--repository", str(untouchable.root), "--workers", "2", "--watch", "0.2", "--drain-wait", "0"]
    with serving(out, *words, before=WITHOUT_RIGHTS) as server:
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == NOBODY
        answers(server.address)
        assert "lowpass_bundle_info" in server.scrape()
        label = ["models", "label", "student", "stable", "1", "--repository", str(untouchable.root)]
        changing = [*WITHOUT_RIGHTS, sys.executable, "-m", "lowpass", *label]
        assert subprocess.run(changing, capture_output=True, check=False).returncode != 0
        answers(server.address)
        assert server.terminate() == 0
        assert {event["level"] for event in server.events()} == {"info"}
    assert sorted((path, path.stat().st_mtime_ns) for path in untouchable.root.rglob("*")) == before


@contextmanager
def unread(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A server whose log goes into a pipe of a page that nobody reads, and what its ready file says."""
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "lowpass", "serve", "--fake", "--address", "127.0.0.1:0", "--drain-wait", "0"]
    command += ["--metrics-address", "127.0.0.1:0", "--ready-file", str(ready), "--max-wait", "60", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stderr is not None
    try:
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        give_up = time.monotonic() + READY_WITHIN
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < give_up, "not ready in time"
            time.sleep(0.02)
        yield process, json.loads(ready.read_text())
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def ask_often(address: str, times: int) -> None:
    message = pb.RecommendRequest(user_id="nobody", k=5).SerializeToString()
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(RECOMMEND)
        for begin in range(0, times, 100):
            calls = [call.future(message, timeout=30.0) for _ in range(begin, min(times, begin + 100))]
            assert {each.code().name for each in calls} <= {"OK", "NOT_FOUND"}


def dropped(metrics_address: str) -> float:
    with closing(HTTPConnection(metrics_address, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("lowpass_log_lines_dropped_total"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "words",
    [["--transport", "grpcio"], pytest.param(["--transport", "native"], marks=TRANSPORTS[1].marks), ["--workers", "2"]],  # type: ignore[attr-defined]
    ids=["grpcio", "native", "workers"],
)
def test_a_log_that_nobody_reads_holds_no_request_and_no_stop(tmp_path: Path, words: list[str]) -> None:
    with unread(tmp_path, "--access-log", "1", *words) as (process, ready):
        ask_often(ready["address"], 2000)
        assert dropped(ready["metrics_address"]) > 0
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - began < 30


def test_a_log_that_is_read_late_has_every_line(tmp_path: Path) -> None:
    with unread(tmp_path, "--access-log", "1") as (process, ready):
        ask_often(ready["address"], 900)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr]
        assert process.wait(60) == 0
    assert [line["event"] for line in lines] == ["ready", *["request"] * 900, "stopping", "stopped"]


def test_broken_handshakes_leave_the_log_to_events(tmp_path: Path) -> None:
    files = Authority(tmp_path).server
    with serving(tmp_path, "--fake", "--tls-cert", str(files.certificate), "--tls-key", str(files.key)) as server:
        host, _, port = server.address.rpartition(":")
        for _ in range(5):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                connection.recv(1)
        assert server.terminate() == 0
        assert [event["event"] for event in server.events()] == ["ready", "stopping", "stopped"]


def test_an_interrupt_of_all_processes_while_workers_start_ends_them_without_a_word() -> None:
    command = [sys.executable, "-m", "lowpass", "serve", "--fake", "--workers", "2", "--address", "127.0.0.1:0"]
    command += ["--metrics-address", ""]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    with process.stderr:
        first = json.loads(process.stderr.readline())
        assert first["event"] == "worker started"
        os.killpg(process.pid, signal.SIGINT)
        rest = [json.loads(line)["event"] for line in process.stderr]
    assert process.wait(30) in {0, 1}
    assert set(rest) <= {"worker started", "worker ready", "stopping", "worker ended", "stopped"}
