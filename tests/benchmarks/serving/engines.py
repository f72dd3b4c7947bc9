"""One set of items in FAISS, in Milvus's core and in pgvector: what each finds, how fast, in how many bytes, and what a
caller sees when it is slow, killed and started again.

    python -m tests.benchmarks.serving.engines --items 100000 --dim 32

Times are by the clock, since engines work in processes of their own: compare rows of one run, on a quiet machine.
Engines are asked by way of a relay of Python threads, which can slow them; it takes its share of every answer.
Milvus Lite's core has no index but a scan that can be tuned (see `export.bundle.engines.milvus`); a real Milvus has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import psutil
from tabulate import tabulate

from distill.evaluation.metrics import overlap
from export.build import engine_load
from export.build.ann import build_index, file_bytes_per_item
from export.build.index_candidates import count_lists
from export.bundle import ExactIndex, ExportError
from export.bundle.engines import Card, EngineAddress, open_engine
from serve.answers.errors import IndexUnavailable
from serve.answers.indexes.breaker import Breaker
from serve.answers.indexes.engine_index import EngineIndex
from serve.answers.indexes.faiss_index import FaissIndex, limit_native_threads
from tests.benchmarks.serving.catalogue import clustered
from tests.kits.engines import MilvusServer, PostgresServer, Proxy, Server

K, RECALL, THREADS, TIMEOUT, PAUSE = 20, 0.99, 4, 1.0, 1.0
KINDS = {"milvus": ("flat", "ivf_flat"), "pgvector": ("hnsw", "ivf_flat")}
Ask = Callable[[Any], Any]


@dataclass(frozen=True)
class Material:
    """Items and who asks, shape (I, d) and (S, d), and the exact answers, shape (S, K)."""

    items: Any
    users: Any
    exact: Any


def measure(ask: Ask, material: Material, seconds: float) -> list[str]:
    """Recall, median and 99th percentile of one caller's time in ms, and answers a second of four."""
    users = material.users
    found, times = [], []
    for row in range(len(users)):
        started = time.perf_counter()
        found.append(ask(users[row : row + 1])[1][0])
        times.append(time.perf_counter() - started)
    end = time.perf_counter() + seconds

    def keep_asking(number: int) -> int:
        limit_native_threads()
        answered = 0
        while time.perf_counter() < end:
            row = (number * 97 + answered) % len(users)
            ask(users[row : row + 1])
            answered += 1
        return answered

    with ThreadPoolExecutor(THREADS) as pool:
        answers = sum(pool.map(keep_asking, range(THREADS)))
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1e3
    recall = overlap(list(material.exact), found).mean()
    return [f"{recall:.3f}", f"{p50:.2f}", f"{p99:.2f}", f"{answers / seconds:,.0f}"]


def ask_faiss(material: Material, seconds: float) -> list[str]:
    """Lists over bytes in this process, as `export` mostly chooses at this size, with as many probes as are needed."""
    lists = count_lists(len(material.items))
    index = build_index(f"IVF{lists},SQ8", material.items)
    limit_native_threads()
    for search in engine_load.rungs("ivf_sq8", lists):
        own = FaissIndex(index, search, material.items)
        if overlap(list(material.exact), list(own.search(material.users, K)[1])).mean() >= RECALL:
            break
    row = measure(lambda vectors: own.search(vectors, K), material, seconds)
    words = "".join(f" {key}={value}" for key, value in search.items())
    return [f"FAISS, in process: IVF{lists},SQ8{words}", *row, f"{file_bytes_per_item(index):.0f}"]


def ask_engine(server: Server, proxy: Proxy, kind: str, material: Material, seconds: float) -> tuple[list[str], Any]:
    """One index of an engine; also returns what asks it."""
    name = f"bench_{kind}"
    address = EngineAddress.parse(server.url(proxy))
    before = psutil.Process(server.pid).memory_info().rss
    engine = open_engine(address, THREADS)
    proxy.engines.append(engine)
    items = material.items
    started = time.perf_counter()
    with closing(engine_load._open_writer(address)) as writer:
        writer.create(name, items.shape[1], kind)
        block = engine_load.block_rows(items.shape[1])
        for first in range(0, len(items), block):
            writer.insert(name, first, items[first : first + block])
        lists = count_lists(len(items))
        size = writer.build(name, kind, lists)
        card = Card("bench", len(items), items.shape[1], kind, 0.0, K)
        ladder = engine_load.rungs(kind, lists)
        note = ""
        try:
            card = engine_load.choose_search(
                engine, name, card, items, material.users[:200], ladder, RECALL, address.place
            )
        except ExportError:
            card = Card("bench", len(items), items.shape[1], kind, 0.0, K, search=ladder[-1])
            note = ", refused by export"
    loaded = time.perf_counter() - started
    grown = (psutil.Process(server.pid).memory_info().rss - before) / len(items)
    index = EngineIndex(
        engine, address.place, name, card, items, timeout=TIMEOUT, breaker=Breaker(failures=5, pause=PAUSE)
    )
    search = "".join(f" {key}={value}" for key, value in card.search.items())
    row = measure(lambda vectors: index.search(vectors, K), material, seconds)
    size_said = f"{size:.0f}" if size else f"{grown:.0f} (memory)"
    return [f"{server.kind}: {kind}{search}{note}, loaded in {loaded:.0f} s", *row, size_said], index


def fail(server: Server, proxy: Proxy, index: EngineIndex, material: Material) -> list[str]:
    """What a caller sees: slow by five seconds, then killed and started again."""
    query = material.users[:1]

    def failures(until: Callable[[list[float]], bool]) -> list[float]:
        found: list[float] = []
        while not until(found):
            started = time.perf_counter()
            try:
                index.search(query, K)
            except IndexUnavailable:
                found.append(time.perf_counter() - started)
        return found

    def recover() -> float:
        started = time.perf_counter()
        while True:
            try:
                index.search(query, K)
                return time.perf_counter() - started
            except IndexUnavailable:
                time.sleep(0.01)

    breaker = index._breaker
    proxy.delay = 5.0
    slow = failures(lambda found: breaker.is_open)
    refused = failures(lambda found: len(found) == 100)
    proxy.mend()
    well = recover()
    server.kill()
    gone = failures(lambda found: breaker.is_open)
    started = time.perf_counter()
    server.start()
    up = time.perf_counter() - started
    back = recover()
    lost = 0
    for _ in range(500):
        try:
            index.search(query, K)
        except IndexUnavailable:
            lost += 1
    return [
        server.kind,
        f"{len(slow)} errors of at most {max(slow):.2f} s",
        f"{np.median(refused) * 1e6:.0f} µs",
        f"{well:.1f} s",
        f"{len(gone)} errors of at most {max(gone):.2f} s",
        f"{up:.1f} + {back:.1f} s",
        f"{lost} of 500",
    ]


@contextmanager
def running(make: type[Any], root: Path) -> Any:
    """An engine, and the way to it."""
    directory = root / make.kind
    directory.mkdir()
    server = make(directory)
    server.start()
    proxy = Proxy(server)
    try:
        yield server, proxy
    finally:
        proxy.close()
        server.stop()


@click.command()
@click.option("--items", default=100_000, show_default=True)
@click.option("--dim", default=32, show_default=True)
@click.option("--users", default=500, show_default=True, help="Who ask.")
@click.option("--seconds", default=5.0, show_default=True, help="How long four threads ask each.")
def main(items: int, dim: int, users: int, seconds: float) -> None:
    """Print both tables."""
    rng = np.random.default_rng(0)
    vectors = clustered(items, dim, 300, rng)
    asking = clustered(users, dim, 300, rng, centres=vectors[rng.choice(items, 300)])
    material = Material(vectors, asking, ExactIndex(vectors).search(asking, K)[1])
    rows, seen = [ask_faiss(material, seconds)], []
    with TemporaryDirectory(prefix="lowpass-engines-") as root:
        for make in (MilvusServer, PostgresServer):
            with running(make, Path(root)) as (server, proxy):
                found = [ask_engine(server, proxy, kind, material, seconds) for kind in KINDS[make.kind]]
                rows += [row for row, _ in found]
                seen.append(fail(server, proxy, found[0][1], material))
    click.echo(f"{items:,} items of {dim}, top {K}, {users} askers; ms of one caller, answers a second of {THREADS}")
    click.echo(tabulate(rows, ("index", "recall", "p50", "p99", "answers/s", "bytes/item"), "github"))
    head = ("engine", "slow by 5 s", "refused in", "well again", "killed", "up + answering", "lost afterwards")
    click.echo(f"\nWhat a caller sees, --index-timeout {TIMEOUT:g} s, breaker of 5 failures and {PAUSE:g} s")
    click.echo(tabulate(seen, head, "github"))


if __name__ == "__main__":
    main()
