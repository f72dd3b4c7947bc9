"""Interactions trained on a second, against RecBole: same data, dimension, batch and thread, sampling included.

RecBole runs in its own interpreter, since its dependencies exclude ours; `tests/golden/recbole_models.py` says how to
make one. Seconds are processor time on either side. The floor of a step is what the optimiser must move: parameters
and both moments read and written, the gradient written and read, 32 N d bytes, at the speed of a plain copy of as
much; with LightGCN also its 2 L bare sparse products, with SimpleX the three of a batch's scores. A copy repeated on
its own finds its table in the cache, which a step between two others does not: Adam's own time is printed beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import torch

from distill.backbones import BACKBONES, Backbone
from distill.backbones.lightgcn import LightGCN
from distill.backbones.simplex import SimpleX
from distill.methods.scratch import Scratch
from distill.training.trainer import Trainer, TrainingOptions, keep_freed_memory
from tests.benchmarks.measuring import REAL_DATA, load_real, one_thread

RECBOLE = os.environ.get("LOWPASS_RECBOLE_PYTHON", "")
ROOT = Path(__file__).resolve().parents[2]
BATCH_SIZE, ROUNDS = 2048, 3
CASES = (
    ("bprmf", "BPR", 64, 100),
    ("bprmf", "BPR", 256, 100),
    ("lightgcn", "LightGCN", 64, 10),
    ("simplex", "SimpleX", 64, 5),
)
REQUIRED_RATIO = 3.0


@pytest.fixture(scope="module", autouse=True)
def single_thread() -> Iterator[None]:
    keep_freed_memory()
    with one_thread():
        yield


def recbole_throughput(model: str, dim: int, steps: int) -> float:
    train = REAL_DATA / "ml-1m" / "train.txt"
    command = [RECBOLE, "-W", "ignore", "-m", "tests.benchmarks.recbole_throughput", "--train", str(train)]
    command += ["--model", model, "--dim", str(dim), "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["interactions_per_second"])


def own_throughput(trainer: Trainer) -> float:
    """Of the trainer itself, over an epoch."""
    before = trainer.progress.processor_seconds
    trainer.train_epoch()
    return float(trainer.data.train.nnz / (trainer.progress.processor_seconds - before))


def median_seconds(work: Callable[[], object], repetitions: int = 15) -> float:
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def floor_seconds(model: Backbone) -> float:
    """What no step of this model can fall below on this machine."""
    table = model.features.detach()
    # Four tables are read and four written.
    seconds = 4 * median_seconds(lambda: torch.empty_like(table).copy_(table))
    if isinstance(model, LightGCN):
        multiply = model.propagation.adjacency.multiply
        seconds += 2 * model.propagation.num_layers * median_seconds(lambda: multiply(table))
    if isinstance(model, SimpleX):
        pairs, negatives = table[:BATCH_SIZE], table[: model.settings.num_negatives]
        seconds += 3 * median_seconds(lambda: pairs @ negatives.T)
    return seconds


@pytest.mark.skipif(not RECBOLE, reason="LOWPASS_RECBOLE_PYTHON names no interpreter that has RecBole")
@pytest.mark.timeout(3600)
def test_training_is_three_times_as_fast_as_recbole(tmp_path: Path) -> None:
    data = load_real("ml-1m")
    click.echo(f"\nml-1m, {data.train.nnz} interactions an epoch, batch {BATCH_SIZE}, one thread, processor time")
    click.echo(
        f"{'model':9s} {'d':>4s} {'RecBole /s':>11s} {'Lowpass /s':>11s} {'ratio':>6s} {'step ms':>8s} "
        f"{'floor ms':>8s} {'Adam ms':>8s} {'Adam MB':>8s}"
    )
    ratios = {}
    for name, rival, dim, steps in CASES:
        torch.manual_seed(0)
        model = BACKBONES[name].build(BACKBONES[name].Settings(), data, dim)
        trainer = Trainer(data, model, Scratch(), TrainingOptions(batch_size=BATCH_SIZE), out=tmp_path, config={})
        own_throughput(trainer)
        # In turn, so that neither has a quieter machine.
        rounds = [(recbole_throughput(rival, dim, steps), own_throughput(trainer)) for _ in range(ROUNDS)]
        theirs, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratios[name, dim] = ours / theirs
        floor, adam = floor_seconds(model), median_seconds(trainer.optimizer.step)
        click.echo(
            f"{name:9s} {dim:4d} {theirs:11.0f} {ours:11.0f} {ours / theirs:6.1f} {1e3 * BATCH_SIZE / ours:8.2f} "
            f"{1e3 * floor:8.2f} {1e3 * adam:8.2f} {8e-6 * model.features.nbytes:8.1f}"
        )
    assert min(ratios.values()) >= REQUIRED_RATIO, ratios
