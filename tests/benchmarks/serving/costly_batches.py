"""The costliest batches a caller may send, by callers who leave: what they burn afterwards, and what others wait.

    python -m tests.benchmarks.serving.costly_batches models --transport native

The server has one core, callers another. Processor seconds are counted from the moment the callers leave until nothing
is in flight, while nobody else asks; a second round has a bystander, who asks one plain question after the other.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import grpc
import psutil
from tabulate import tabulate

from export.bundle import open_bundle
from export.bundle.repository import ModelRepository
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import SERVICE
from tests.benchmarks.serving import servers
from tests.serve.processes import ServerProcess

ENTRIES = 1000
LEAVES_AFTER = 0.3
"""Seconds: the batches are at work by then."""
PATIENCE = 300.0
ENDED = re.compile(
    r'^lowpass_request(?:_duration_seconds_count\{.*method="BatchRecommend".*'
    r'|s_rejected_total\{reason="abandoned")\} (\S+)$',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Attack:
    """Equal batches sent at once.

    Attributes:
        callers: Each sends one.
        k: Of every entry.
    """

    callers: int
    k: int
    diversity: float

    def request(self, users: list[str]) -> bytes:
        """A batch of `ENTRIES`, serialized."""
        entries = [
            pb.RecommendRequest(user_id=users[number % len(users)], k=self.k, diversity=self.diversity)
            for number in range(ENTRIES)
        ]
        return pb.BatchRecommendRequest(requests=entries).SerializeToString()

    def __str__(self) -> str:
        reordered = f", diversity {self.diversity:g}" if self.diversity else ""
        return f"{self.callers} × ({ENTRIES} entries, k {self.k}{reordered})"


ATTACKS = (Attack(1, 500, 0.5), Attack(4, 500, 0.5), Attack(4, 20, 0.5), Attack(4, 1000, 0.0))


class Bystander:
    """Asks one plain question after the other until told to stop."""

    def __init__(self, address: str, user: str) -> None:
        self._address, self._question = address, servers.question(user)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seconds: list[float] = []
        self.refused = 0

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with _connect(self._address) as channel:
            call: Any = channel.unary_unary(servers.RECOMMEND)
            while not self._stop.is_set():
                started = time.perf_counter()
                try:
                    call(self._question, timeout=PATIENCE)
                except grpc.RpcError:
                    self.refused += 1
                self.seconds.append(time.perf_counter() - started)
                time.sleep(0.005)


def _connect(address: str) -> grpc.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
    return grpc.insecure_channel(address, options)


def send_and_leave(address: str, attack: Attack, message: bytes) -> str:
    """Send the batches and leave; what the callers heard."""
    channels = [_connect(address) for _ in range(attack.callers)]
    try:
        for channel in channels:
            grpc.channel_ready_future(channel).result(PATIENCE)
        calls: list[Any] = []
        for channel in channels:
            call: Any = channel.unary_unary(f"/{SERVICE}/BatchRecommend")
            calls.append(call.future(message, timeout=PATIENCE))
        time.sleep(LEAVES_AFTER)
        for one in calls:
            one.cancel()
        return ", ".join(sorted({one.code().name for one in calls}))
    finally:
        for channel in channels:
            channel.close()


def ended(server: ServerProcess) -> float:
    """How many batches the server has done with, or never begun."""
    return sum(float(value) for value in ENDED.findall(server.scrape()))


def wait_until(server: ServerProcess, count: float) -> None:
    """Wait until the server has done with so many batches."""
    give_up = time.monotonic() + PATIENCE
    while ended(server) < count:
        if time.monotonic() > give_up:
            raise TimeoutError("the server is still at work")
        time.sleep(0.02)


def measure(server: ServerProcess, attack: Attack, users: list[str]) -> list[str]:
    """One row of the table."""
    message = attack.request(users)
    process = psutil.Process(server.process.pid)
    done = ended(server)
    heard = send_and_leave(server.address, attack, message)
    before, left = sum(process.cpu_times()[:2]), time.perf_counter()
    wait_until(server, done + attack.callers)
    burnt, lasted = sum(process.cpu_times()[:2]) - before, time.perf_counter() - left
    with Bystander(server.address, users[0]) as bystander:
        time.sleep(0.2)
        send_and_leave(server.address, attack, message)
        wait_until(server, done + 2 * attack.callers)
    worst = max(bystander.seconds)
    return [
        str(attack),
        f"{len(message) / 1000:.0f} kB",
        heard,
        f"{burnt:.2f} s",
        f"{lasted:.2f} s",
        f"{worst * 1000:,.0f} ms",
        f"{bystander.refused} of {len(bystander.seconds)}",
    ]


@click.command()
@click.argument("repository", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--transport", type=click.Choice(["grpcio", "native"]), default="grpcio", show_default=True)
def main(repository: Path, transport: str) -> None:
    """Print the table."""
    models = ModelRepository(repository)
    (name, *_) = models.models()
    bundle = open_bundle(models.resolve(name))
    users = bundle.user_ids.take(range(min(200, len(bundle.user_ids))))
    core, other = servers.two_cores()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--repository", str(repository), "--transport", transport)
        rows = []
        for number, attack in enumerate(ATTACKS):
            # What one attack teaches the admission must not help against the next.
            with servers.lowpass(Path(folder) / str(number), core, *arguments) as server, servers.pinned(other):
                rows.append(measure(server, attack, users))
    header = ("batches", "each", "ended as", "burnt after they left", "busy for", "others: worst", "others: refused")
    click.echo(f"{transport}, {len(bundle.item_ids):,} items, callers leave after {LEAVES_AFTER:g} s")
    click.echo(tabulate(rows, header))


if __name__ == "__main__":
    main()
