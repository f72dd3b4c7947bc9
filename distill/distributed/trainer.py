"""The epoch loop of ranks that train together: steps, checkpoints, early stop, and the run at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.backbones.bprmf import INITIAL_STD
from distill.distributed import checkpoint
from distill.distributed.objectives import Objective
from distill.distributed.ranking import Evaluation
from distill.distributed.teacher import BLOCK_BYTES
from distill.embeddings_file import embeddings_header
from distill.finite import find_flaw
from distill.run import CONFIG_FILE, EMBEDDINGS_FILE, HISTORY_FILE, METRICS_FILE
from distill.storage import write_file
from distill.training.tracker import Tracker
from distill.training.trainer import EpochLoop, TrainingOptions, as_csv


@dataclass(frozen=True)
class Destination:
    """Where a training goes.

    Attributes:
        out: The run directory, on a disk that all ranks see.
        config: Settings recorded in the run and compared on resume.
        checkpoint_seconds: From one checkpoint to the next, at the least; 0 for one after each epoch.
    """

    out: Path
    config: Mapping[str, Any]
    checkpoint_seconds: float = 60.0


class ShardedTrainer(EpochLoop):
    """Trains a sharded table together with the other ranks, and writes its run."""

    def __init__(
        self, objective: Objective, options: TrainingOptions, table_learning_rate: float, destination: Destination
    ) -> None:
        """Draw the table, and make the optimiser of what is not in it.

        Args:
            objective: What is learned; its world has the table, the ranks and the data.
            options: Of the training; the learning rate is that of the objective's own parameters.
            table_learning_rate: That of the table's fused optimiser, at the start.
            destination: Where it goes.
        """
        super().__init__(options, destination.out, destination.checkpoint_seconds)
        world = objective.world
        self.ranks, self.table, self.share = world.ranks, world.table, world.share
        self.objective, self.config = objective, destination.config
        self._table_learning_rate = table_learning_rate
        self.table.draw(options.seed, INITIAL_STD)
        self._parameters = list(objective.parameters())
        self.ranks.share_parameters(self._parameters)
        optimizer = torch.optim.Adam(
            self._parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        ) if self._parameters else None  # fmt: skip
        self.training = checkpoint.Training(self.table, objective, optimizer)
        self.evaluation = Evaluation(self.share, self.table, self.ranks, self.options.eval_users)

    def resume(self) -> None:
        """Continue from the checkpoint in the run directory.

        Raises:
            RunError: There is none, or it belongs to other settings.
        """
        self.progress = checkpoint.load(self.out, self.config, self.training)

    def save(self) -> None:
        """Write a checkpoint into the run directory."""
        checkpoint.save(self.out, self.config, self.progress, self.training, self.ranks)

    def train_epoch(self) -> float:
        """Run one epoch and return the mean loss per interaction, or user, of all ranks."""
        seed = self.options.seed, self.progress.epoch
        own, shared = np.random.default_rng([*seed, 1 + self.ranks.rank]), np.random.default_rng(seed)
        total = torch.zeros((), device=self.ranks.device)
        with self._timed_epoch() as factor:
            self.table.set_learning_rate(self._table_learning_rate * factor)
            for group in [] if self.training.optimizer is None else self.training.optimizer.param_groups:
                group["lr"] = self.options.learning_rate * factor
            for batch in self.objective.epoch(own, shared):
                total += self.train_step(batch)
            return float(self.ranks.sum(total.cpu().numpy()[None])[0]) / self.objective.total

    def train_step(self, batch: Any) -> torch.Tensor:
        """Take one step on all ranks; return this rank's part of its loss.

        The loss of a step is a sum over the ranks. TorchRec averages the gradients of the table's rows over them, and
        `average_gradients` those of the objective's parameters, so the loss is multiplied by their number.
        """
        loss = self.objective.loss(batch)
        self.objective.zero_grad()
        torch.autograd.backward(loss * self.ranks.size)
        self.ranks.average_gradients(self._parameters)
        if self.training.optimizer is not None:
            self.training.optimizer.step()
        return loss.detach()

    def _agree(self, said: bool) -> bool:
        return self.ranks.from_first(said)

    def _tracker(self) -> Tracker:
        """The first rank's shows the epochs, and writes events."""
        first = self.ranks.is_first
        tensorboard = self.options.tensorboard if first else None
        return Tracker(self.options.epochs, self.progress.epoch, tensorboard, shown=first)

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}", self._rate)

    @property
    def _rate(self) -> str:
        return f"--table-lr (it was {self._table_learning_rate:g})"

    def _validate(self) -> tuple[Mapping[str, float], Callable[[], None]]:
        for rank, flaw in enumerate(self.ranks.gather(find_flaw(self.table.local))):
            if flaw:
                raise self._diverged(f"rows of rank {rank}: {flaw}", self._rate)
        report = self.evaluation.report("validation").over_all_users(self.share.num_users)
        return report.metrics, partial(checkpoint.save_best, self.out, self.progress.epoch, self.table, self.ranks)

    def _finish(self) -> Mapping[str, Any]:
        checkpoint.load_best(self.out, self.progress.best_epoch, self.table)
        told = self._describe()
        metrics = {
            **self.evaluation.reports(),
            "training": {
                **told,
                "peak_memory_bytes": max(self.ranks.gather(told["peak_memory_bytes"])),
                "optimizer": f"{self.table.optimizer} on {self.ranks.size} ranks",
                "ranks": self.ranks.size,
                "table_bytes": self.ranks.gather(self.table.bytes),
            },
        }
        self._write_run(metrics)
        return metrics

    def _write_run(self, metrics: Mapping[str, Any]) -> None:
        """Write the files of a run, `metrics.json` last; the table comes to the first rank block by block."""
        out, (num_rows, dim), users = self.out, self.table.shape, self.share.num_users
        blocks = self.table.blocks(max(1, BLOCK_BYTES // (4 * dim)))
        if not self.ranks.is_first:
            for _ in blocks:
                pass
        else:
            write_file(out / HISTORY_FILE, as_csv(self.progress.history))
            write_file(out / CONFIG_FILE, (json.dumps(self.config, indent=2) + "\n").encode())
            shapes = {"user_embeddings": (users, dim), "item_embeddings": (num_rows - users, dim)}
            head = embeddings_header({name: ("F32", shape) for name, shape in shapes.items()})
            numbers = (block.cpu().numpy().astype("<f4").tobytes() for block in blocks)
            write_file(out / EMBEDDINGS_FILE, chain([head], numbers))
            write_file(out / METRICS_FILE, (json.dumps(metrics, indent=2) + "\n").encode())
            checkpoint.remove_checkpoints(out)
        self.ranks.gather(None)
