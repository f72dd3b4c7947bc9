"""Epochs of Gowalla: drawing negatives, ordering and batching against all of the training, one thread.

Processor time, which other work on the machine does not stretch; medians over the epochs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import click
import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch, PairwiseSampler
from distill.training.trainer import keep_freed_memory
from tests.benchmarks.measuring import load_real, one_thread

BATCH_SIZE, DIMS, EPOCHS = 2048, (20, 64), 5

Result = TypeVar("Result")


class Stopwatch:
    """Adds up the processor seconds of the calls it times."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, call: Callable[[], Result]) -> Result:
        started = time.process_time()
        result = call()
        self.seconds += time.process_time() - started
        return result


def train_epoch(batches: Iterator[Batch], model: BPRMF, optimizer: torch.optim.Optimizer) -> float:
    """Train an epoch as the trainer does; return the seconds spent waiting for batches."""
    sampling = Stopwatch()
    while (batch := sampling.time(lambda: next(batches, None))) is not None:
        loss = model.base_loss(batch, model.embeddings())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return sampling.seconds


def measure(sampler: PairwiseSampler, model: BPRMF) -> tuple[float, float, float]:
    """Median seconds of the negatives alone, of all sampling, of the whole epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(EPOCHS):
        negatives, whole = Stopwatch(), Stopwatch()
        negatives.time(lambda: sampler.draw_negatives(rng))
        sampling = whole.time(lambda: train_epoch(sampler.epoch(rng), model, optimizer))
        rows.append((negatives.seconds, sampling, whole.seconds))
    first, second, third = (statistics.median(column) for column in zip(*rows, strict=True))
    return first, second, third


@pytest.mark.timeout(600)
def test_negatives_cost_little_of_an_epoch() -> None:
    keep_freed_memory()
    data = load_real("gowalla")
    sampler = PairwiseSampler(data.train, BATCH_SIZE)
    click.echo(f"\n{data.name}: {data.train.nnz} interactions, BPRMF, batch {BATCH_SIZE}")
    click.echo(f"{'d':>3s} {'negatives s':>11s} {'+ order, batches s':>18s} {'epoch s':>8s} {'share':>7s}")
    shares = {}
    with one_thread():
        for dim in DIMS:
            torch.manual_seed(0)
            model = BPRMF(data.num_users, data.num_items, dim)
            negatives, sampling, whole = measure(sampler, model)
            shares[dim] = sampling / whole
            click.echo(f"{dim:3d} {negatives:11.4f} {sampling:18.4f} {whole:8.2f} {shares[dim]:7.2%}")
    assert max(shares.values()) < 0.05
