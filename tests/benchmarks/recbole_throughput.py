"""How many interactions RecBole trains on in a second: run by an interpreter that has RecBole.

    cd REPOSITORY && RECBOLE/bin/python -m tests.benchmarks.recbole_throughput \
        --train ../shared/data/ml-1m/train.txt --model LightGCN --dim 64 --steps 20

Its own trainer, batches and sampling, on one thread. Seconds are the process's CPU time, because that of a single
thread does not grow when others use the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from recbole.utils import get_trainer

from tests.golden.recbole_models import open_model

BATCH_SIZE = 2048
WARM_UP_STEPS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "BPR": {},
    "LightGCN": {"n_layers": 3},
    "SimpleX": {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 100, "alpha": 1.0}},
}


class FirstBatches:
    """As many batches of a loader as asked for: what RecBole's trainer iterates over."""

    def __init__(self, batches: Any, count: int) -> None:
        self.batches = batches
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        return islice(self.batches, self.count)


def read_pairs(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the interactions of a LightGCN file, "user item item …" a line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        user, *items = map(int, line.split())
        yield from ((user, item) for item in items)


def measure(train: Path, model: str, dim: int, steps: int) -> float:
    """Interactions a second of training."""
    settings = {"embedding_size": dim, **SETTINGS[model]}
    # RecBole counts (positive, negative) pairs.
    settings["train_batch_size"] = BATCH_SIZE * settings.get("train_neg_sample_args", {"sample_num": 1})["sample_num"]
    # RecBole leaves logs in the working directory.
    with TemporaryDirectory() as directory, chdir(directory):
        config, batches, network = open_model(
            model, read_pairs(train), Path(directory), checkpoint_dir=directory, **settings
        )
        trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)
        trainer._train_epoch(FirstBatches(batches, WARM_UP_STEPS), 0)
        started = time.process_time()
        trainer._train_epoch(FirstBatches(batches, steps), 1)
        seconds = time.process_time() - started
    return steps * BATCH_SIZE / seconds


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--model", choices=list(SETTINGS), required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(given.train.resolve(), given.model, given.dim, given.steps)
    sys.stdout.write(json.dumps({"interactions_per_second": found}) + "\n")


if __name__ == "__main__":
    main()
