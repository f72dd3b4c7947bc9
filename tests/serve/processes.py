"""Servers in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_WITHIN = 90.0


@dataclass
class ServerProcess:
    """A running `lowpass serve`."""

    process: subprocess.Popen[str]
    log: Path
    address: str
    metrics_address: str
    admin_address: str = ""
    health_address: str = ""
    http_address: str = ""
    console_address: str = ""
    workers: tuple[int, ...] = ()

    def scrape(self) -> str:
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def terminate(self, within: float = 30.0) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def events(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, before: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """Start `lowpass serve` on free ports, wait until it is ready, and end it afterwards.

    Args:
        before: Words before the command, of what runs it in its place.
    """
    ready, log = folder / "ready.json", folder / "serve.log"
    command = [*before, sys.executable, "-m", "lowpass", "serve", "--address", "127.0.0.1:0"]
    command += ["--metrics-address", "127.0.0.1:0", "--ready-file", str(ready), *arguments]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            give_up = time.monotonic() + READY_WITHIN
            while not ready.exists():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < give_up, "not ready in time"
                time.sleep(0.02)
            addresses = json.loads(ready.read_text())
            names = ("address", "metrics_address", "admin_address", "health_address", "http_address", "console_address")
            known = {name: addresses.get(name, "") for name in names}
            yield ServerProcess(process, log, **known, workers=tuple(addresses.get("workers", ())))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
