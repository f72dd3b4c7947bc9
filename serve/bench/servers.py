"""Servers in child processes, each on a core of its own; none outlives its block."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from serve.bench.errors import BenchError

START_SECONDS = 300.0
STOP_SECONDS = 20.0
LOWPASS = (sys.executable, "-m", "lowpass")


@dataclass(frozen=True)
class CorePlan:
    """One core each, or none where that is impossible.

    Attributes:
        server: Core of the server, or None for any.
        load: Core of the load generator, or None for any.
        note: What a reader of the numbers must know of it.
    """

    server: int | None
    load: int | None
    note: str


def plan_cores() -> CorePlan:
    """Choose among the cores this process may use; two threads of one physical core only where there are no others."""
    if not hasattr(psutil.Process, "cpu_affinity"):
        return CorePlan(None, None, "Not pinned: this system cannot bind a process to a core.")
    cores = sorted(psutil.Process().cpu_affinity() or ())
    if len(cores) < 2:
        return CorePlan(None, None, "Not pinned: there is one core, which the server and the load generator share.")
    server = cores[0]
    siblings = _siblings(server)
    apart = [core for core in cores[1:] if core not in siblings]
    load = (apart or cores[1:])[0]
    note = f"Server pinned to core {server}, load generator to core {load}."
    if not apart:
        note += " They are two threads of one physical core and slow each other down."
    return CorePlan(server, load, note)


def pin(pid: int | None, core: int | None) -> None:
    """Bind a process that has just started, and every thread it is going to start, to one core; None: to any."""
    if core is not None:
        psutil.Process(pid).cpu_affinity([core])


def _siblings(core: int) -> Collection[int]:
    """Cores that are threads of the same physical core, from Linux's /sys; only itself where that is not known."""
    # psutil counts physical cores, but does not say which threads share one.
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return {core}
    siblings: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


def memory_of(pid: int) -> dict[str, int]:
    """Memory of a process now, bytes: "rss" resident; on Linux also "anonymous", its part that no file backs."""
    memory = psutil.Process(pid).memory_info()
    if not hasattr(memory, "shared"):
        return {"rss": memory.rss}
    # What Linux calls shared are the resident pages of files, whether or not somebody shares them: proc(5), statm.
    return {"rss": memory.rss, "anonymous": memory.rss - memory.shared}


@dataclass(frozen=True)
class ServerProcess:
    """A server that is ready.

    Attributes:
        model: Name of the model it serves.
        address: Of gRPC, host:port.
        pid: Of the process.
    """

    model: str
    address: str
    pid: int

    def memory(self) -> dict[str, int]:
        """Memory now; see `memory_of`."""
        return memory_of(self.pid)

    def cpu_seconds(self) -> float:
        """Processor time since its start, user and system, all its threads."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system


@contextmanager
def serve_model(repository: Path, model: str, core: int | None) -> Iterator[ServerProcess]:
    """Serve one model on free ports of this machine while the block runs.

    Args:
        repository: Root of the model repository.
        model: Name of the model.
        core: Core to bind the server to, or None.

    Yields:
        The server, ready.

    Raises:
        BenchError: It did not start, or died while the block ran.
    """
    with tempfile.TemporaryDirectory(prefix="lowpass-bench-") as scratch, (Path(scratch) / "log").open("w+b") as log:
        ready_file = Path(scratch) / "ready.json"
        free = "127.0.0.1:0"
        command = ["serve", "--repository", str(repository), "--model", model, "--drain-wait", "0"]
        command += ["--address", free, "--metrics-address", free, "--ready-file", str(ready_file)]
        process = subprocess.Popen([*LOWPASS, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            pin(process.pid, core)
            ready = _wait_ready(process, ready_file, model, log)
            try:
                yield ServerProcess(model, str(ready["address"]), process.pid)
            except (BenchError, psutil.Error) as error:
                _check_alive(process, model, log, error)
                raise
            _check_alive(process, model, log)
        finally:
            _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], ready_file: Path, model: str, log: IO[bytes]) -> dict[str, Any]:
    give_up = time.monotonic() + START_SECONDS
    while not ready_file.exists():
        _check_alive(process, model, log)
        if time.monotonic() > give_up:
            raise BenchError(f"model {model!r}: its server was not ready within {START_SECONDS:g} s; {_last_line(log)}")
        time.sleep(0.02)
    ready: dict[str, Any] = json.loads(ready_file.read_text(encoding="utf-8"))
    return ready


def _check_alive(
    process: subprocess.Popen[bytes], model: str, log: IO[bytes], cause: BaseException | None = None
) -> None:
    code = process.poll()
    if code is not None:
        raise BenchError(f"model {model!r}: its server ended with exit code {code}: {_last_line(log)}") from cause


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("lowpass: error: ") if lines else "it wrote nothing to its log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_lowpass(*arguments: str) -> None:
    """Run another command of this program; its progress shows on a terminal, its output does not.

    Raises:
        BenchError: It failed.
    """
    with tempfile.TemporaryFile() as errors:
        # A bar on a terminal stays alive; otherwise the child's words are kept for the error.
        stderr = None if sys.stderr.isatty() else errors
        process = subprocess.Popen(
            [*LOWPASS, *arguments, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
            code = process.wait()
        finally:
            _stop(process)
        if code != 0:
            raise BenchError(f"'lowpass {arguments[0]}' failed with exit code {code}: {_last_line(errors)}")
