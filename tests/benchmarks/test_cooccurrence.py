"""The co-occurrence graph: what was resident at most while it was built, against a dense N × N of counts."""

from __future__ import annotations

import time

import click

from distill.graph.adjacency import cooccurrence_adjacency
from tests.benchmarks.measuring import load_real, peak_memory_mib, restart_peak_memory

NUM_NEIGHBORS = 5


def test_the_graph_of_gowalla_is_built_in_little_memory() -> None:
    click.echo(f"\n{NUM_NEIGHBORS} neighbours; MiB above what was resident before, and of dense counts (float32)")
    click.echo(f"{'data':12s} {'users':>7s} {'items':>7s} {'edges':>9s} {'seconds':>8s} {'MiB':>6s} {'dense MiB':>10s}")
    found = {}
    for name in ("citeulike-t", "ml-1m", "gowalla"):
        data = load_real(name)
        before = restart_peak_memory()
        started = time.perf_counter()
        graph = cooccurrence_adjacency(data.train, NUM_NEIGHBORS)
        seconds = time.perf_counter() - started
        found[name] = peak_memory_mib() - before
        dense = 4 * (data.num_users**2 + data.num_items**2) / 2**20
        click.echo(
            f"{name:12s} {data.num_users:7d} {data.num_items:7d} {graph.nnz // 2:9d} {seconds:8.2f} "
            f"{found[name]:6.0f} {dense:10.0f}"
        )
    assert found["gowalla"] < 1024
