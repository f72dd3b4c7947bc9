"""A million items, ten million users: how soon a server is ready, what memory is its own, how fast it answers."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import click
import numpy as np
import pytest
import scipy.sparse as sp

from export.build.fold_in import FoldInSettings, fit_fold_in
from export.build.index_choice import choose_index
from export.build.publish import publish_version
from export.bundle import BundleContents, ModelCard
from export.bundle.repository import ModelRepository
from serve.bench.load import Asking, Generator
from serve.bench.servers import memory_of
from serve.bench.windows import STAGES
from serve.bench.workload import Workload
from tests.benchmarks.serving import servers
from tests.benchmarks.serving.catalogue import clustered

USERS, ITEMS, DIM, SEEN = 10_000_000, 1_000_000, 32, 4
SAMPLED = 5_000
RECALL, P99_MS, READY_SECONDS, PRIVATE_MIB = 0.95, 5.0, 5.0, 150.0
WINDOW, ROUNDS = 4.0, 5

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a repository of one made-up model."""
    servers.two_cores()
    root = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    items = clustered(ITEMS, DIM, 2_000, rng)
    users = clustered(USERS, DIM, 2_000, rng, centres=items[rng.choice(ITEMS, 2_000)])
    seen = np.sort(rng.integers(0, ITEMS // SEEN, (USERS, SEEN), dtype=np.int32) + np.arange(SEEN) * (ITEMS // SEEN))
    indptr = np.arange(USERS + 1, dtype=np.int64) * SEEN
    part = sp.csr_matrix(
        (np.ones(SAMPLED * SEEN, np.float32), seen[:SAMPLED].ravel(), indptr[: SAMPLED + 1]), shape=(SAMPLED, ITEMS)
    )
    started = time.perf_counter()
    index, card = choose_index(items, users[:SAMPLED], part, RECALL, rng)
    click.echo(
        f"\n{ITEMS:,} items of {DIM}: {card.factory} {card.search} finds {card.ann_recall:.4f},"
        f" {card.bytes_per_item:g} bytes an item; chosen in {time.perf_counter() - started:.0f} s"
    )
    contents = BundleContents(
        user_ids=[f"user-{row}" for row in range(USERS)],
        item_ids=[f"item-{row}" for row in range(ITEMS)],
        user_embeddings=users,
        item_embeddings=items,
        seen_indptr=indptr,
        seen_indices=seen.ravel(),
        popularity=np.argsort(-np.bincount(seen.ravel(), minlength=ITEMS), kind="stable"),
        fold_in_embeddings=fit_fold_in(part, users[:SAMPLED], FoldInSettings()),
    )
    path = publish_version(
        ModelCard("large", "", "made-up", "scratch", DIM, (USERS + ITEMS) * DIM, None),
        contents,
        ModelRepository(root),
        data={"name": "made-up", "fingerprint": "0" * 64},
        quality={"convention": "none: made up"},
        fold_in={},
        index=(index, card),
    )
    click.echo(f"bundle of {sum(file.stat().st_size for file in path.iterdir()) / 2**30:.2f} GiB")
    return root


@pytest.fixture
def arguments(large: Path) -> tuple[str, ...]:
    return "--repository", str(large), "--model", "large"


def test_ready_soon(arguments: tuple[str, ...], tmp_path: Path) -> None:
    core, _ = servers.two_cores()
    started = time.perf_counter()
    with servers.lowpass(tmp_path / "server", core, *arguments, "--no-verify"):
        seconds = time.perf_counter() - started
    click.echo(f"\nready {seconds:.1f} s after its start (bar {READY_SECONDS:g})")
    assert seconds <= READY_SECONDS


def test_memory_of_its_own(arguments: tuple[str, ...], large: Path, tmp_path: Path) -> None:
    core, other = servers.two_cores()
    with servers.lowpass(tmp_path / "server", core, *arguments, "--workers", "2", "--no-verify") as server:
        with Generator(server.address, large / "large" / "1", Workload(k=20), core=other) as load:
            load.run(Asking(WINDOW, in_flight=8))
        ready = next(event for event in server.events() if event["event"] == "ready")
        memory = [memory_of(worker) for worker in ready["workers"]]
    own, resident = ([each[part] / 2**20 for each in memory] for part in ("anonymous", "rss"))
    click.echo(
        f"\nworkers' own memory {', '.join(f'{mib:.0f}' for mib in own)} MiB (bar {PRIVATE_MIB:g}),"
        f" resident {', '.join(f'{mib:.0f}' for mib in resident)} MiB"
    )
    assert len(own) == 2
    assert max(own) <= PRIVATE_MIB


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_p99_at_seven_tenths_of_the_peak(
    arguments: tuple[str, ...], large: Path, tmp_path: Path, transport: str
) -> None:
    core, other = servers.two_cores()
    options = ("--no-verify", "--transport", transport)
    tails, peaks = [], []
    with (
        servers.lowpass(tmp_path / "server", core, *arguments, *options) as server,
        Generator(server.address, large / "large" / "1", Workload(k=20), core=other) as load,
    ):
        load.run(Asking(WINDOW, in_flight=32))
        for number in range(ROUNDS):
            # Of the same users: one question again and again would stay in the caches.
            peak = load.run(Asking(WINDOW, in_flight=32, seed=number)).throughput
            window = load.run(Asking(WINDOW, rate=0.7 * peak, seed=number))
            assert not window.errors, window.errors
            assert window.throughput >= 0.65 * peak, "the load generator is too slow for this server"
            peaks.append(peak)
            # As the answers themselves say: the caller's view would add what the generator makes them wait.
            tails.append(float(np.percentile(window.stages[:, STAGES.index("total")], 99)) / 1000)
    p99 = statistics.median(tails)
    click.echo(
        f"\n{transport}: peak {statistics.median(peaks):,.0f}/s; at 70 % p99, from arrival to answer,"
        f" {p99:.2f} ms (bar {P99_MS:g})"
    )
    assert p99 <= P99_MS
