"""A model served by a child process, with what the kernel says it uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from serve.gains.errors import LoadFailed, ServerDied

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class ServerProcess:
    """`lowpass serve` of one model on a free port; a context manager that never leaves an orphan.

    Attributes:
        model: Its name in the repository.
        target: HOST:PORT, once entered.
    """

    def __init__(self, repository: Path, model: str, cpu: int | None) -> None:
        """Remember what to serve.

        Args:
            repository: Root of the model repository.
            model: Which one.
            cpu: The core to run on, or None for any.
        """
        self.model = model
        self.target = ""
        self._repository = repository
        self._cpu = cpu
        self._scratch = tempfile.TemporaryDirectory(prefix="lowpass-gains-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _log(self) -> Path:
        return Path(self._scratch.name) / "serve.log"

    def __enter__(self) -> Self:
        ready = Path(self._scratch.name) / "ready.json"
        command = [sys.executable, "-m", "lowpass", "serve", "--repository", str(self._repository)]
        command += ["--model", self.model, "--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
        command += ["--drain-wait", "0", "--ready-file", str(ready)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            if self._cpu is not None:
                os.sched_setaffinity(self._process.pid, {self._cpu})
            self._await(ready)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._scratch.cleanup()

    def _await(self, ready: Path) -> None:
        give_up = time.monotonic() + START_SECONDS
        while not ready.exists():
            self.require_alive()
            if time.monotonic() > give_up:
                raise ServerDied(f"model '{self.model}': not ready after {START_SECONDS:.0f} s; {self._last_line()}")
            time.sleep(0.02)
        self.target = json.loads(ready.read_text(encoding="utf-8"))["address"]

    def require_alive(self) -> None:
        """Check that it still runs.

        Raises:
            ServerDied: It does not; its last log line is in the message.
        """
        if self._process is None or self._process.poll() is not None:
            raise ServerDied(f"model '{self.model}': the server stopped; {self._last_line()}")

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its last words: {lines[-1]}" if lines else "it said nothing"

    def memory(self) -> dict[str, int]:
        """Resident memory in bytes: "resident" in all, "anonymous" the part that is not mapped files.

        Empty where the kernel does not tell (it does on Linux).
        """
        self.require_alive()
        status = Path(f"/proc/{self._pid}/status")
        if not status.is_file():
            return {}
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        names = {"resident": "VmRSS", "anonymous": "RssAnon"}
        return {name: int(fields[field].split()[0]) * 1024 for name, field in names.items()}

    def cpu_seconds(self) -> float:
        """Processor time used so far, in seconds; 0 where the kernel does not tell."""
        stat = Path(f"/proc/{self._pid}/stat")
        if not stat.is_file():
            return 0.0
        # Fields 14 and 15 of proc(5), counted behind the command's closing parenthesis.
        fields = stat.read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def _pid(self) -> int:
        return self._process.pid if self._process is not None else 0


def generate_load(
    server: ServerProcess, bundle: Path, *, requests: int, in_flight: int, seed: int, cpu: int | None
) -> dict[str, object]:
    """Load a served model from a process of its own.

    Args:
        server: The target, entered.
        bundle: Whose users to ask for.
        requests: How many.
        in_flight: How many at a time.
        seed: Of the draw of users.
        cpu: The core of the load generator, or None for any.

    Returns:
        A `LoadReport` as a dictionary.

    Raises:
        LoadFailed: The generator failed, or a request ended in an error.
        ServerDied: The server stopped meanwhile.
    """
    command = [sys.executable, "-m", "serve.loadtest", "--target", server.target, "--bundle", str(bundle)]
    command += ["--requests", str(requests), "--in-flight", str(in_flight), "--seed", str(seed)]
    command += [] if cpu is None else ["--cpu", str(cpu)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    server.require_alive()
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        raise LoadFailed(f"model '{server.model}': the load generator failed: {words[-1]}")
    report: dict[str, object] = json.loads(done.stdout)
    if report["errors"]:
        raise LoadFailed(f"model '{server.model}': requests ended in {report['errors']}; try fewer --requests")
    return report
