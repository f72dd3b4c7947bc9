"""What changing models and shadowing costs those who ask meanwhile."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from export.bundle import Bundle
from serve.bench.load import Asking, Generator
from serve.bench.windows import Window
from serve.bench.workload import Workload
from serve.client import AdminClient
from tests.benchmarks.serving import servers

ROUNDS, SECONDS = 7, 4.0
SHADOW_SHARE, SHADOW_P99, RELOAD_P99 = 0.1, 1.05, 2.0

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Loaded:
    """A server, who changes it, who asks it, and the most it answers a second."""

    admin: AdminClient
    generator: Generator
    peak: float

    def ask(self, share: float, seed: int) -> Window:
        """One window at a share of the peak."""
        window = self.generator.run(Asking(SECONDS, rate=share * self.peak, seed=seed))
        assert not window.errors, window.errors
        return window


@pytest.fixture
def loaded(repository: Path, student: Bundle, tmp_path: Path) -> Iterator[Loaded]:
    core, other = servers.two_cores()
    arguments = ("--repository", str(repository), "--admin-address", "127.0.0.1:0")
    with servers.lowpass(tmp_path / "server", core, *arguments) as server:
        generator = Generator(server.address, student.path, Workload(model="student", k=20), core=other)
        with generator, AdminClient(server.admin_address) as admin:
            generator.run(Asking(1.0, in_flight=32))
            peak = generator.run(Asking(SECONDS, in_flight=32)).throughput
            yield Loaded(admin, generator, peak)


def test_shadow_costs_the_live_arm_nothing(loaded: Loaded) -> None:
    ratios = []
    for number in range(ROUNDS):
        tails = {}
        for share in (0.0, SHADOW_SHARE) if number % 2 == 0 else (SHADOW_SHARE, 0.0):
            loaded.admin.set_shadow("student", "teacher" if share else "", share=share)
            tails[share] = loaded.ask(0.4, number).at(99)
        ratios.append(tails[SHADOW_SHARE] / tails[0.0])
    median = statistics.median(ratios)
    click.echo(
        f"\nshadow at {SHADOW_SHARE:.0%}: p99 {median:.3f} times as long"
        f" ({min(ratios):.2f} to {max(ratios):.2f}; bar {SHADOW_P99})"
    )
    assert median <= SHADOW_P99


def test_reloading_under_load(loaded: Loaded) -> None:
    ratios, reloads = [], 0
    for number in range(ROUNDS):
        steady = loaded.ask(0.7, number).at(99)
        stop, done = threading.Event(), deque[str]()

        def reload(stop: threading.Event = stop, done: deque[str] = done) -> None:
            while not stop.is_set():
                for version in ("1", "2"):
                    loaded.admin.set_label("student", "stable", version)
                    done.append(version)

        thread = threading.Thread(target=reload)
        thread.start()
        during = loaded.ask(0.7, number).at(99)
        stop.set()
        thread.join()
        reloads += len(done)
        ratios.append(during / steady)
    median = statistics.median(ratios)
    click.echo(f"\n{reloads} loads of the student at 70 % load: p99 {median:.2f} times as long (bar {RELOAD_P99:g})")
    assert reloads >= ROUNDS
    assert median <= RELOAD_P99
