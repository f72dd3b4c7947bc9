from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import lowpass
from distill.data.interactions import save_interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from tests.distill.commands.words import QUICK

Torchrun = Callable[..., "subprocess.Popen[str]"]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session", autouse=True)
def need_torchrec() -> None:
    if importlib.util.find_spec("torchrec") is None:
        pytest.skip("torchrec is not installed: pip install --no-deps torchrec==1.8.0")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a teacher; neither users nor items divide by two. Not to be changed."""
    folder = tmp_path_factory.mktemp("sharded")
    data = synthesize(SyntheticOptions(num_users=61, num_items=51, num_clusters=6, mean_interactions=10))
    save_interactions(data, folder / "data")
    assert lowpass.main(["train", str(folder / "data"), "--out", str(folder / "teacher"), "--dim", "12", *QUICK]) == 0
    return folder


def start_ranks(number: int, *words: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Start ranks on this machine, each with a thread, as a user does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, f"--max-restarts={restarts}", "-m", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip


def wait_for_epoch(ranks: subprocess.Popen[str], out: Path, epoch: int) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and ranks.poll() is None:
        path = out / "checkpoint.json"
        if path.is_file() and json.loads(path.read_text())["progress"]["epoch"] >= epoch:
            return
        time.sleep(0.005)
    ranks.kill()
    raise AssertionError(f"no checkpoint came: {ranks.communicate()[0]}")


@pytest.fixture(scope="session")
def two_ranks(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks left what they found, one of which was killed during the last training."""
    out = tmp_path_factory.mktemp("two-ranks")
    words = ["tests.distill.distributed.two_ranks", str(small / "data"), str(small / "teacher"), str(out)]
    ranks = start_ranks(2, *words, restarts=1)
    wait_for_epoch(ranks, out / "disturbed" / "run", 4)
    os.kill(psutil.Process(ranks.pid).children()[1].pid, signal.SIGKILL)
    output, _ = ranks.communicate(timeout=900)
    assert ranks.returncode == 0, output
    assert "exitcode: -9" in output
    return out


@pytest.fixture(scope="session")
def found(two_ranks: Path) -> Any:
    return json.loads((two_ranks / "found.json").read_text())
