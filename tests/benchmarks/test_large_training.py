"""A BPRMF epoch that grows with its interactions alone: random ones, twenty a user, twice as many users as items.

Processor seconds of one core. The floor of a step is what it must move: each of 3 B rows is read, its gradient written
and read, and the row read and written by the optimizer, 20 d bytes, at the speed of gathering as many random rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import click
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.methods.scratch import Scratch
from distill.rows import is_row_sparse
from distill.training.trainer import Trainer, TrainingOptions, keep_freed_memory
from tests.benchmarks.measuring import one_thread, peak_memory_mib, restart_peak_memory

BATCH_SIZE, DIM, A_USER = 2048, 64, 20
USERS = (50_000, 200_000)
WARM_STEPS, REPETITIONS = 100, 50
GROWTH = 1.15
"""Bound on the exponent of the interactions in an epoch's time."""


def draw_interactions(num_users: int, rng: np.random.Generator) -> Interactions:
    num_items = num_users // 2
    items = (num_items * rng.random((num_users, A_USER)) ** 2).astype(
        np.int32
    )  # some items are a thousandfold as popular
    users = np.repeat(np.arange(num_users, dtype=np.int32), A_USER)
    train = sp.csr_matrix((np.ones(items.size, np.float32), (users, items.ravel())), shape=(num_users, num_items))
    train.sum_duplicates()
    nothing = sp.csr_matrix(train.shape, dtype=np.float32)
    user_ids, item_ids = (np.arange(size).astype(np.str_) for size in train.shape)
    return Interactions("random", user_ids, item_ids, train, nothing, nothing)


def seconds_of(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def floor_seconds(table: torch.Tensor, rng: np.random.Generator) -> float:
    """Of a step: five passes over its rows, each at the speed of a gather."""
    rows = [torch.from_numpy(rng.integers(len(table), size=3 * BATCH_SIZE)) for _ in range(REPETITIONS)]
    return 5 * statistics.median(seconds_of(lambda part=part: table.index_select(0, part)) for part in rows)  # type: ignore[misc]


@pytest.mark.timeout(1800)
def test_an_epoch_grows_with_its_interactions(tmp_path: Path) -> None:
    keep_freed_memory()
    click.echo(f"\nBPRMF, d = {DIM}, batch {BATCH_SIZE}, {A_USER} interactions a user, one thread, processor time")
    click.echo(f"{'users':>8s} {'interactions':>12s} {'epoch s':>8s} {'step ms':>8s} {'floor ms':>8s} {'peak MiB':>8s}")
    epochs = []
    for num_users in USERS:
        rng = np.random.default_rng(0)
        data = draw_interactions(num_users, rng)
        resident = restart_peak_memory()
        model = BPRMF(data.num_users, data.num_items, DIM)
        options = TrainingOptions(batch_size=BATCH_SIZE, optimizer="row-adam")
        trainer = Trainer(data, model, Scratch(), options, out=tmp_path, config={})
        assert is_row_sparse(model.table)
        with one_thread():
            list(islice(trainer.sampler.epoch(rng), WARM_STEPS))
            seconds = seconds_of(trainer.train_epoch)
            floor = floor_seconds(model.table.detach(), rng)
        epochs.append((data.train.nnz, seconds))
        click.echo(
            f"{num_users:8d} {data.train.nnz:12d} {seconds:8.1f} {1e3 * seconds / trainer.sampler.num_batches:8.2f} "
            f"{1e3 * floor:8.2f} {peak_memory_mib() - resident:8.0f}"
        )
    (few, short), (many, long) = epochs
    growth = np.log(long / short) / np.log(many / few)
    click.echo(f"an epoch grows with the interactions to the power of {growth:.2f}")
    assert growth < GROWTH
