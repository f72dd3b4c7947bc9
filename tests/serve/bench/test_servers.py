from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from export.bundle.repository import ModelRepository
from serve.bench.errors import BenchError
from serve.bench.servers import memory_of, plan_cores, run_lowpass, serve_model
from serve.client import RecommenderClient


def test_a_model_is_served_on_its_core_while_the_block_runs(repository: ModelRepository) -> None:
    core = min(psutil.Process().cpu_affinity() or [])
    with serve_model(repository.root, "teacher", core) as server:
        with RecommenderClient(server.address, timeout=10.0) as client:
            assert client.recommend("u1", k=3).model == "teacher"
        assert psutil.Process(server.pid).cpu_affinity() == [core]
        assert 0 < server.cpu_seconds() < 60
        memory = server.memory()
        assert 0 < memory["anonymous"] < memory["rss"]
    assert not psutil.pid_exists(server.pid)


def test_a_server_that_cannot_start_gives_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match=r"model 'none': its server ended with exit code 2"),
        serve_model(tmp_path, "none", None),
    ):
        pass


def kill_and_ask(repository: Path) -> None:
    with serve_model(repository, "teacher", None) as server:
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        raise BenchError("no request was answered")


def test_a_server_that_dies_is_named(repository: ModelRepository) -> None:
    with pytest.raises(BenchError, match=r"model 'teacher': its server ended with exit code -9"):
        kill_and_ask(repository.root)


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(BenchError, match=r"'lowpass query' failed with exit code 2: .*give exactly one of --user"):
        run_lowpass("query")


def test_server_and_load_get_cores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(*cores: int) -> tuple[int | None, int | None, str]:
        monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(cores))
        monkeypatch.setattr("serve.bench.servers._siblings", lambda core: {core, core + 1})
        found = plan_cores()
        return found.server, found.load, found.note

    assert plan(4)[:2] == (None, None)
    assert plan(4, 5, 6)[:2] == (4, 6), "5 is a thread of the same physical core"
    assert "two threads of one physical core" in plan(4, 5)[2]


def test_memory_of_this_process() -> None:
    memory = memory_of(os.getpid())
    assert 2**20 < memory["anonymous"] < memory["rss"]
