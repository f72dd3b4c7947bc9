"""The epoch loop of ranks that train together: steps, checkpoints, early stop, and the run at the end."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.backbones.bprmf import INITIAL_STD
from distill.distributed import checkpoint
from distill.distributed.objectives import Objective
from distill.distributed.ranking import Evaluation
from distill.distributed.teacher import BLOCK_BYTES
from distill.errors import NotFiniteError, SettingError
from distill.run import CONFIG_FILE, EMBEDDINGS_FILE, HISTORY_FILE, METRICS_FILE
from distill.storage import publish_file, write_file
from distill.training.checkpoint import Progress
from distill.training.tracker import Tracker
from distill.training.trainer import STOP_METRIC, TrainingOptions, as_csv, flush_denormals, keep_freed_memory


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


class ShardedTrainer:
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
        world = objective.world
        self.ranks, self.table, self.share = world.ranks, world.table, world.share
        self.objective, self.options, self.destination = objective, options, destination
        self._table_learning_rate = table_learning_rate
        self.table.draw(options.seed, INITIAL_STD)
        self._parameters = list(objective.parameters())
        self.ranks.share_parameters(self._parameters)
        optimizer = torch.optim.Adam(
            self._parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        ) if self._parameters else None  # fmt: skip
        self.training = checkpoint.Training(self.table, objective, optimizer)
        self.evaluation = Evaluation(self.share, self.table, self.ranks, self.options.eval_users)
        self.progress = Progress()

    def resume(self) -> None:
        """Continue from the checkpoint in the run directory.

        Raises:
            RunError: There is none, or it belongs to other settings.
        """
        self.progress = checkpoint.load(self.destination.out, self.destination.config, self.training)

    def fit(self) -> Mapping[str, Any]:
        """Train until the epochs or the patience run out, evaluate, write the run.

        Returns:
            What `metrics.json` holds.

        Raises:
            NotFiniteError: The training diverged.
        """
        torch.set_num_threads(self.options.threads)
        keep_freed_memory()
        saved_at = time.monotonic()
        with self._tracker() as tracker:
            while not self._is_done():
                loss = self.train_epoch()
                if not math.isfinite(loss):
                    raise NotFiniteError(
                        f"{self.destination.out}: training diverged in epoch {self.progress.epoch} (loss {loss}); "
                        f"start again with a smaller --table-lr (it was {self._table_learning_rate:g})"
                    )
                tracker.advance(loss)
                if self.progress.epoch % self.options.eval_every == 0 or self.progress.epoch == self.options.epochs:
                    tracker.evaluated(self._evaluate(loss))
                if self.ranks.from_first(time.monotonic() - saved_at >= self.destination.checkpoint_seconds):
                    self.save()
                    saved_at = time.monotonic()
        return self._finish()

    def save(self) -> None:
        """Write a checkpoint into the run directory."""
        checkpoint.save(self.destination.out, self.destination.config, self.progress, self.training, self.ranks)

    def train_epoch(self) -> float:
        """Run one epoch and return the mean loss per interaction, or user, of all ranks."""
        epoch, seed = self.progress.epoch, self.options.seed
        own, shared = np.random.default_rng([seed, epoch, 1 + self.ranks.rank]), np.random.default_rng([seed, epoch])
        started, on_processor = time.perf_counter(), time.process_time()
        self._set_learning_rate(epoch)
        total = torch.zeros((), device=self.ranks.device)
        for batch in self.objective.epoch(own, shared):
            total += self.train_step(batch)
        mean = float(self.ranks.sum(total.cpu().numpy()[None])[0]) / self.objective.total
        self.progress.epoch = epoch + 1
        self.progress.seconds += time.perf_counter() - started
        self.progress.processor_seconds += time.process_time() - on_processor
        return mean

    @flush_denormals()
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

    def _set_learning_rate(self, epoch: int) -> None:
        factor = 1.0
        if self.options.schedule == "cosine":
            factor = 0.5 * (1.0 + math.cos(math.pi * epoch / self.options.epochs))
        self.table.set_learning_rate(self._table_learning_rate * factor)
        for group in [] if self.training.optimizer is None else self.training.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * factor

    def _tracker(self) -> Tracker:
        """The first rank's shows the epochs, and writes events."""
        first = self.ranks.is_first
        tensorboard = self.options.tensorboard if first else None
        return Tracker(self.options.epochs, self.progress.epoch, tensorboard, shown=first)

    def _is_done(self) -> bool:
        waited = self.progress.epoch - self.progress.best_epoch
        limit = self.options.max_seconds
        out_of_time = limit is not None and self.progress.seconds >= limit and self.progress.best_epoch > 0
        return self.ranks.from_first(
            self.progress.epoch >= self.options.epochs or waited >= self.options.patience or out_of_time
        )

    def _evaluate(self, loss: float) -> dict[str, float]:
        report = self.evaluation.report("validation")
        metrics = {name: float(value) for name, value in report.items() if "@" in name}
        row = {
            "epoch": float(self.progress.epoch),
            "loss": loss,
            "seconds": round(self.progress.seconds, 3),
            "processor_seconds": round(self.progress.processor_seconds, 3),
            **metrics,
        }
        self.progress.history.append(row)
        if metrics[STOP_METRIC] > self.progress.best_value:
            checkpoint.save_best(self.destination.out, self.progress.epoch, self.table, self.ranks)
            self.progress.best_value, self.progress.best_epoch = metrics[STOP_METRIC], self.progress.epoch
        return row

    def _finish(self) -> Mapping[str, Any]:
        if not self.progress.best_epoch:
            raise SettingError("eval_every: training ended before the first evaluation; give more epochs")
        out = self.destination.out
        checkpoint.load_best(out, self.progress.best_epoch, self.table)
        peaks = self.ranks.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        metrics = {
            **self.evaluation.reports(),
            "training": {
                "epochs": self.progress.epoch,
                "best_epoch": self.progress.best_epoch,
                "seconds": round(self.progress.seconds, 2),
                "processor_seconds": round(self.progress.processor_seconds, 2),
                "peak_memory_bytes": max(peaks),
                "optimizer": f"{self.table.optimizer} on {self.ranks.size} ranks",
                "ranks": self.ranks.size,
                "table_bytes": self.ranks.gather(self.table.bytes),
                "stopping_rule": f"no better validation {STOP_METRIC} for {self.options.patience} epochs, "
                f"evaluated every {self.options.eval_every}",
            },
        }
        self._write_run(metrics)
        return metrics

    def _write_run(self, metrics: Mapping[str, Any]) -> None:
        """Write the files of a run, `metrics.json` last; the table comes to the first rank block by block."""
        out, (num_rows, dim), users = self.destination.out, self.table.shape, self.share.num_users
        blocks = self.table.blocks(max(1, BLOCK_BYTES // (4 * dim)))
        if not self.ranks.is_first:
            for _ in blocks:
                pass
        else:
            write_file(out / HISTORY_FILE, as_csv(self.progress.history))
            write_file(out / CONFIG_FILE, (json.dumps(self.destination.config, indent=2) + "\n").encode())
            with publish_file(out / EMBEDDINGS_FILE) as draft, draft.open("wb") as stream:
                stream.write(embeddings_header(users, num_rows - users, dim))
                for block in blocks:
                    stream.write(block.cpu().numpy().astype("<f4").tobytes())
            write_file(out / METRICS_FILE, (json.dumps(metrics, indent=2) + "\n").encode())
            checkpoint.remove_checkpoints(out)
        self.ranks.gather(None)


def embeddings_header(num_users: int, num_items: int, dim: int) -> bytes:
    """The head of a safetensors file of `user_embeddings` and `item_embeddings`, float32, in this order."""
    split, end = 4 * dim * num_users, 4 * dim * (num_users + num_items)
    words = json.dumps({
        "user_embeddings": {"dtype": "F32", "shape": [num_users, dim], "data_offsets": [0, split]},
        "item_embeddings": {"dtype": "F32", "shape": [num_items, dim], "data_offsets": [split, end]},
    }).encode()  # fmt: skip
    words += b" " * (-len(words) % 8)
    return len(words).to_bytes(8, "little") + words
