"""What hostile callers cost a server and its other callers, as a table.

    python -m tests.benchmarks.serving.hostile [--transport native] [--tree CHECKOUT] [--only NAME]

Each attack has a fresh server and goes on for some seconds, while one caller asks by gRPC and one by HTTP, each again
and again. A tree of another version has the figures before a change.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from psutil import Process
from tabulate import tabulate

from serve.client.recommender import RecommenderClient
from tests.kits.authority import Authority
from tests.kits.raw_http2 import RawConnection, call_headers, header_bomb, header_frames
from tests.kits.transport_bench import RECOMMEND
from tests.serve.processes import ServerProcess, serving

SECONDS = 8.0
PATIENCE = 20.0
"""How long the other callers wait for an answer."""
POST = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
Attack = Callable[[ServerProcess, contextlib.ExitStack], Iterable[socket.socket]]


def plain(server: ServerProcess, stack: contextlib.ExitStack, count: int, said: bytes) -> list[socket.socket]:
    """Connections to the gateway that have said something."""
    host, port = server.http_address.split(":")
    made = []
    for _ in range(count):
        # A server that is stuck takes no more at some point.
        with contextlib.suppress(OSError):
            made.append(stack.enter_context(socket.create_connection((host, int(port)), timeout=0.5)))
            made[-1].sendall(said)
    return made


def slow_calls(server: ServerProcess, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Calls whose message never comes."""
    one = RawConnection(server.address)
    stack.callback(one.close)
    one.send(header_frames(2 * number + 1, call_headers(RECOMMEND)) for number in range(64))
    return []


def bombs(count: int, streams: int, names: int) -> Attack:
    """Connections with headers that unfold."""

    def attack(server: ServerProcess, stack: contextlib.ExitStack) -> list[socket.socket]:
        for _ in range(count):
            one = RawConnection(server.address)
            stack.callback(one.close)
            one.send(header_bomb(RECOMMEND, streams, names, b"v"))
        return []

    return attack


def unread(server: ServerProcess, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Callers who ask much and read nothing."""
    for each in plain(server, stack, 64, b""):
        each.settimeout(0.1)
        with contextlib.suppress(OSError):
            each.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
    return []


ATTACKS: dict[str, Attack] = {
    "nothing": lambda server, stack: [],
    "64 HTTP bodies at a byte a second": lambda server, stack: plain(server, stack, 64, POST),
    "64 HTTP headers at a byte a second": lambda server, stack: plain(server, stack, 64, POST[:20]),
    "500 HTTP connections that say nothing": lambda server, stack: plain(server, stack, 500, b"") and [],
    "64 that read no answer": unread,
    "64 gRPC calls without their message": slow_calls,
    "headers that unfold, 1 connection": bombs(1, 1024, 230),
    "headers that unfold, 12 connections, 7.6 MB": bombs(12, 1024, 490),
}
TLS_ATTACKS: dict[str, Attack] = {
    "TLS: 16 that never shake hands": lambda server, stack: plain(server, stack, 16, b"") and [],
}


@dataclass
class Others:
    """Who asks meanwhile; latencies in seconds by protocol, with `PATIENCE` for a failure."""

    seen: dict[str, list[float]] = field(default_factory=lambda: {"grpc": [], "http": []})
    failed: dict[str, int] = field(default_factory=lambda: {"grpc": 0, "http": 0})

    def ask(self, kind: str, ask: Callable[[], None], stop: threading.Event) -> None:
        """Ask until told to stop."""
        while not stop.is_set():
            began = time.monotonic()
            try:
                ask()
            except Exception:
                self.failed[kind] += 1
            self.seen[kind].append(time.monotonic() - began)
            stop.wait(0.02)

    def told(self, kind: str) -> str:
        """The worst, and how many failed."""
        failed = f", {self.failed[kind]} of {len(self.seen[kind])} failed" if self.failed[kind] else ""
        return f"{max(self.seen[kind]) * 1e3:,.0f} ms{failed}"


@contextlib.contextmanager
def asking(server: ServerProcess, trust: ssl.SSLContext | None, authority: Authority | None) -> Iterator[Others]:
    """Ask by both protocols in threads, one connection a request by HTTP."""
    others, stop = Others(), threading.Event()

    def by_http() -> None:
        connection = http.client.HTTPConnection(server.http_address, timeout=PATIENCE)
        if trust is not None:
            connection = http.client.HTTPSConnection(server.http_address, timeout=PATIENCE, context=trust)
        try:
            connection.request("GET", "/v1/recommend?user_id=user-1&k=3")
            if connection.getresponse().status != 200:
                raise RuntimeError("refused")
        finally:
            connection.close()

    credentials = authority.trust() if authority is not None else None
    with RecommenderClient(server.address, timeout=PATIENCE, credentials=credentials) as client:
        client.recommend("user-1", k=3)
        asks = {"grpc": lambda: client.recommend("user-1", k=3), "http": by_http}
        threads = [threading.Thread(target=others.ask, args=(*each, stop)) for each in asks.items()]
        for each in threads:
            each.start()
        yield others
        stop.set()
        for each in threads:
            each.join()


def trickle(sockets: Iterable[socket.socket]) -> None:
    """A byte on each."""
    for each in sockets:
        with contextlib.suppress(OSError):
            each.send(b"a")


def row(name: str, attack: Attack, transport: str, *, tls: bool) -> list[object]:
    """Run one attack."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        authority = Authority(Path(folder)) if tls else None
        options = ["--fake", "--drain-wait", "0", "--http-address", "127.0.0.1:0", "--transport", transport]
        if authority is not None:
            options += ["--tls-cert", str(authority.server.certificate), "--tls-key", str(authority.server.key)]
        server = stack.enter_context(serving(Path(folder), *options))
        process = Process(server.process.pid)
        trust = authority.trusting_context() if authority is not None else None
        with asking(server, trust, authority) as others:
            time.sleep(1.0)
            before = most = process.memory_info().rss
            others.seen = {"grpc": [], "http": []}
            slow = list(attack(server, stack))
            give_up = time.monotonic() + SECONDS
            while time.monotonic() < give_up:
                most = max(most, process.memory_info().rss)
                trickle(slow if int(time.monotonic() * 10) % 10 == 0 else [])
                time.sleep(0.1)
        return [name, f"+{(most - before) >> 20} MiB", others.told("grpc"), others.told("http")]


@click.command()
@click.option("--transport", default="grpcio", show_default=True)
@click.option("--tree", type=click.Path(exists=True, file_okay=False), help="Of the version that serves.")
@click.option("--only", default="", help="Attacks whose name has this in it.")
def main(transport: str, tree: str | None, only: str) -> None:
    """Run every attack and print the table."""
    if tree is not None:
        os.chdir(tree)  # python -m looks there first
        os.environ["PYTHONPATH"] = tree
    chosen = [(name, attack, False) for name, attack in ATTACKS.items() if only in name]
    if transport != "native":
        chosen += [(name, attack, True) for name, attack in TLS_ATTACKS.items() if only in name]
    rows = []
    for name, attack, tls in chosen:
        rows.append(row(name, attack, transport, tls=tls))
        click.echo(" | ".join(map(str, rows[-1])), err=True)
    headings = [f"{transport}: attack", "memory", "others by gRPC, worst", "others by HTTP, worst"]
    click.echo(tabulate(rows, headings, tablefmt="github"))


if __name__ == "__main__":
    main()
