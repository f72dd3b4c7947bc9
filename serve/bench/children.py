"""Child processes: the server under test, the load generator, the job that builds rivals. None outlives its block."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from serve.bench.cores import pin
from serve.bench.errors import GainsError

START_SECONDS = 300.0
STOP_SECONDS = 20.0
PYTHON = (sys.executable, "-m")


@dataclass(frozen=True)
class ServerProcess:
    """A server that is ready.

    Args:
        model: What it serves.
        address: Of gRPC.
        pid: Of the process.
    """

    model: str
    address: str
    pid: int

    def memory(self) -> dict[str, int]:
        """Bytes of memory now: "rss" resident, "anonymous" its part that no file backs; empty where unknown."""
        try:
            text = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            return {}
        fields = {line.split(":")[0]: line.split()[1] for line in text.splitlines() if line.endswith(" kB")}
        return {"rss": int(fields["Rss"]) * 1024, "anonymous": int(fields["Anonymous"]) * 1024}


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
        GainsError: It did not start, or died while the block ran.
    """
    with tempfile.TemporaryDirectory(prefix="lowpass-gains-") as scratch, (Path(scratch) / "log").open("w+b") as log:
        ready_file = Path(scratch) / "ready.json"
        free = "127.0.0.1:0"
        command = ["lowpass", "serve", "--repository", str(repository), "--model", model]
        command += ["--address", free, "--metrics-address", free, "--ready-file", str(ready_file), "--drain-wait", "0"]
        process = subprocess.Popen([*PYTHON, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            pin(process.pid, core)
            ready = _wait_ready(process, ready_file, model, log)
            try:
                yield ServerProcess(model, str(ready["address"]), process.pid)
            except GainsError as error:
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
            raise GainsError(f"model {model!r}: its server was not ready within {START_SECONDS:g} s; {_last_line(log)}")
        time.sleep(0.02)
    ready: dict[str, Any] = json.loads(ready_file.read_text(encoding="utf-8"))
    return ready


def _check_alive(
    process: subprocess.Popen[bytes], model: str, log: IO[bytes], cause: BaseException | None = None
) -> None:
    code = process.poll()
    if code is not None:
        raise GainsError(f"model {model!r}: its server ended with exit code {code}: {_last_line(log)}") from cause


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("lowpass: error: ") if lines else "it wrote nothing to its log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_load(server: ServerProcess, bundle: Path, arguments: Sequence[str], core: int | None) -> list[dict[str, Any]]:
    """Run the load generator in a process of its own.

    Args:
        server: Whom to ask.
        bundle: Whose users ask.
        arguments: Further ones of `python -m serve.bench`.
        core: Core to bind it to, or None.

    Returns:
        One `LoadSummary` as a dict for each number of requests in flight.

    Raises:
        GainsError: It failed.
    """
    command = ["serve.bench", "--target", server.address, "--bundle", str(bundle), "--model", server.model]
    command += ["--server-pid", str(server.pid), *arguments]
    text = _run(command, f"the load on model {server.model!r}", core=core)
    levels: list[dict[str, Any]] = json.loads(text)["levels"]
    return levels


def run_lowpass(*arguments: str) -> None:
    """Run another command of this program; its progress shows, its output does not.

    Raises:
        GainsError: It failed.
    """
    _run(["lowpass", *arguments, "--json"], f"'lowpass {arguments[0]}'")


def _run(command: Sequence[str], what: str, *, core: int | None = None) -> str:
    with tempfile.TemporaryFile() as errors:
        # A bar on a terminal stays alive; otherwise the child's words are kept for the error.
        stderr = None if core is None and sys.stderr.isatty() else errors
        process = subprocess.Popen([*PYTHON, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        try:
            pin(process.pid, core)
            output, _ = process.communicate()
        finally:
            _stop(process)
        if process.returncode != 0:
            said = _last_line(errors).removeprefix("loadtest: error: ")
            raise GainsError(f"{what} failed with exit code {process.returncode}: {said}")
    return output.decode("utf-8")
