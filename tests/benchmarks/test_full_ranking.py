"""Full ranking against the bare matrix products it cannot do without, one thread.

Products, ranking and the plain way (a top-k over whole rows) take turns over the same slices of users, so that a
change in the machine's load touches all three; the bar is on sums over the slices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import click
import numpy as np
import pytest
import torch

from distill.data.interactions import Interactions
from distill.evaluation.metrics import Rows
from distill.evaluation.ranking import CHUNK_BYTES, rank_items
from distill.evaluation.selection import GROUP
from tests.benchmarks.measuring import load_real, one_thread, peak_memory_mib, restart_peak_memory

K, SLICES = 20, 8
CASES = (("citeulike-t", 20), ("citeulike-t", 400), ("gowalla", 20), ("gowalla", 400))


def timed(work: Callable[[Rows], object], rows: Rows) -> float:
    started = time.perf_counter()
    work(rows)
    return time.perf_counter() - started


class Measured(NamedTuple):
    """Seconds of the three, and MiB above the model while ranking."""

    products: float
    ranking: float
    plain: float
    mib: float


def measure(data: Interactions, dim: int) -> Measured:
    users, items = torch.randn(data.num_users, dim), torch.randn(data.num_items, dim)
    width = GROUP * (data.num_items // GROUP + 1)
    chunk = CHUNK_BYTES // (4 * width)
    buffer = torch.empty(chunk, width)

    def products(rows: Rows) -> None:
        for start in range(0, len(rows), chunk):
            part = torch.from_numpy(rows[start : start + chunk])
            torch.matmul(users[part], items.T, out=buffer[: len(part), : data.num_items])

    def rank(rows: Rows) -> None:
        rank_items(users, items, data.train, rows, K)

    def plain(rows: Rows) -> None:
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            scores = users[torch.from_numpy(part)] @ items.T
            scores[data.train[part].nonzero()] = -torch.inf
            scores.topk(K, dim=1)

    bare_seconds = rank_seconds = plain_seconds = mib = 0.0
    for rows in np.array_split(np.arange(data.num_users), SLICES):
        bare_seconds += timed(products, rows)
        before = restart_peak_memory()
        rank_seconds += timed(rank, rows)
        mib = max(mib, peak_memory_mib() - before)
        plain_seconds += timed(plain, rows)
    return Measured(bare_seconds, rank_seconds, plain_seconds, mib)


@pytest.mark.timeout(1800)
def test_full_ranking_costs_little_more_than_its_products() -> None:
    torch.manual_seed(0)
    click.echo(f"\ntop {K} of the catalogue for every user, one thread; seconds, and MiB above the model")
    click.echo(
        f"{'data':12s} {'d':>4s} {'products':>9s} {'ranking':>8s} {'ratio':>6s} {'plain':>8s} {'ratio':>6s} {'MiB':>6s}"
    )
    found = {}
    with one_thread():
        for name, dim in CASES:
            got = measure(load_real(name), dim)
            click.echo(
                f"{name:12s} {dim:4d} {got.products:9.2f} {got.ranking:8.2f} {got.ranking / got.products:6.2f} "
                f"{got.plain:8.2f} {got.plain / got.products:6.2f} {got.mib:6.0f}"
            )
            found[name, dim] = got
    largest, narrow = found["gowalla", 400], found["citeulike-t", 20]
    assert largest.ranking <= 1.3 * largest.products
    assert largest.mib < 1024
    assert narrow.ranking < 0.6 * narrow.plain, "where d is small, selecting must not dominate"
