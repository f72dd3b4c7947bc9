"""The epoch loop: Adam, early stop on validation, checkpoints, resume."""

from __future__ import annotations

import csv
import ctypes
import io
import math
import platform
import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch

from distill.backbones.base import Backbone
from distill.backbones.sampling import Batch, Sampler, UserSampler
from distill.data.interactions import Interactions
from distill.errors import NotFiniteError, SettingError
from distill.evaluation import tiles
from distill.evaluation.protocol import Protocol, evaluate, report_splits
from distill.finite import find_flaw
from distill.methods.base import Method, Step
from distill.rows import is_row_sparse, mark_row_sparse
from distill.run import HISTORY_FILE, write_ids, write_run, write_trajectory
from distill.storage import write_file
from distill.training.checkpoint import Embeddings, Progress, load_checkpoint, remove_checkpoints, save_checkpoint
from distill.training.row_adam import RowAdam
from distill.training.tracker import Tracker, follow_steps

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_THRESHOLD = 2**30
_TRIM_THRESHOLD = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed (mallopt(3)); the peak does not change.

    A training step frees and takes the same megabytes over and over. By default large blocks go back to the kernel,
    so the next step's tensors fault in page by page: a gather of 8.8 MB then costs several times its copy.

    Returns:
        Whether it was told; elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD))


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Let the processor take numbers below 1e-38 for 0.

    Weight decay shrinks what no gradient holds any longer (the weights of a projector's dead unit, their moments) by a
    factor a step; once they are denormal, each product with them costs tens of times another. Only meanwhile: NumPy and
    others test at their start that denormals are there.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


CHECKPOINT_SECONDS = 60.0
STOP_METRIC = "NDCG@10"
ROW_ADAM_ENTITIES = 200_000
"""N from which the optimizer "auto" moves the rows of a batch alone: there, at d = 64, more than nine tenths of a step
of Adam's are spent on rows without a gradient."""
Schedule = Literal["constant", "cosine"]
Judge = Callable[[npt.NDArray[Any], npt.NDArray[Any]], Mapping[str, Any]]
OptimizerKind = Literal["auto", "adam", "row-adam"]
VALIDATION = Protocol(split="validation", mask="train", average="all", cutoffs=(10, 20))
"""Of early stop; its users are drawn where there are many, the same in each evaluation."""


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; all but `device`, `threads`, `tensorboard` and `keep_checkpoints` change the result.

    Attributes:
        epochs: Most epochs.
        batch_size: Interactions a step; users, for a method that goes by users.
        learning_rate: Adam's, at the start.
        schedule: "constant", or "cosine": the learning rate falls along half a cosine, to 0 after `epochs`
            (Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5, without restarts).
        weight_decay: L2 added to the gradient (Adam's `weight_decay`).
        optimizer: "adam"; "row-adam", which moves the rows of a batch alone, for backbones whose embeddings are a
            table; or "auto", the latter for these from `ROW_ADAM_ENTITIES` users and items on.
        patience: Stop after this many epochs without a better validation NDCG@10. Long by default: a small
            student first learns popularity and stands still for tens of epochs before it becomes personal.
        eval_every: Epochs between evaluations.
        eval_users: On how many users early stop and the final reports are measured, as in `Protocol`.
        max_seconds: Stop after this much training time, seconds, evaluation left out; None for no limit.
        seed: Of the initialisation, the order and the negatives.
        device: "cpu", "cuda", "cuda:1", …
        threads: CPU threads of torch; the result is the same twice on one.
        tensorboard: Directory of event files, or None.
        keep_checkpoints: How many earlier states of the best embeddings so far to keep in the run, for methods that
            learn from a teacher's training; 4 N d bytes each in memory, twice as many of them until the end.
    """

    epochs: int = 1000
    batch_size: int = 2048
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    weight_decay: float = 1e-3
    optimizer: OptimizerKind = "auto"
    patience: int = 100
    eval_every: int = 5
    eval_users: int | None = None
    max_seconds: float | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    tensorboard: Path | None = None
    keep_checkpoints: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "eval_every", "threads"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name}: {getattr(self, name)} is below 1")
        if self.patience < self.eval_every:
            raise SettingError(
                f"patience: {self.patience} epochs end before the first evaluation; give eval_every "
                f"({self.eval_every}) or more"
            )
        for name in ("keep_checkpoints", "seed"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name}: {getattr(self, name)} is negative; give 0 or more")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise SettingError(f"max_seconds: {self.max_seconds} is not above 0")
        for name, kinds in (("schedule", get_args(Schedule)), ("optimizer", get_args(OptimizerKind))):
            if getattr(self, name) not in kinds:
                raise SettingError(f"{name}: '{getattr(self, name)}' is not one of {', '.join(kinds)}")
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise SettingError("learning_rate must be above 0 and weight_decay not below 0, both finite")


def open_device(name: str) -> torch.device:
    """Return a device that is really there.

    Raises:
        SettingError: Unknown name, or CUDA is asked for and absent.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingError(f"device: '{name}' is not a device; give cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingError("device: no CUDA device is available here; use --device cpu")
    return device


class EpochLoop(ABC):
    """What every training does epoch by epoch: when it evaluates, keeps what is best, saves and stops."""

    def __init__(self, options: TrainingOptions, out: Path, checkpoint_seconds: float) -> None:
        """Start at epoch 0.

        Args:
            options: Of the training.
            out: The run directory.
            checkpoint_seconds: From one checkpoint to the next, at the least.
        """
        self.options = options
        self.out = out
        self.progress = Progress()
        self._checkpoint_seconds = checkpoint_seconds

    def fit(self) -> Mapping[str, Any]:
        """Train until the epochs or the patience run out, evaluate, write the run.

        Returns:
            What `metrics.json` holds.

        Raises:
            NotFiniteError: The training diverged. It leaves no run, and no checkpoint later than its last finite epoch.
        """
        torch.set_num_threads(self.options.threads)
        keep_freed_memory()
        self.out.mkdir(parents=True, exist_ok=True)
        saved_at = time.monotonic()
        with self._tracker() as tracker:
            while not self._agree(self._is_done()):
                loss = self.train_epoch()
                self._require_finite(loss)
                tracker.advance(loss)
                if self.progress.epoch % self.options.eval_every == 0 or self.progress.epoch == self.options.epochs:
                    tracker.evaluated(self._evaluate(loss))
                if self._agree(time.monotonic() - saved_at >= self._checkpoint_seconds):
                    self.save()
                    saved_at = time.monotonic()
        if not self.progress.best_epoch:
            raise SettingError("eval_every: training ended before the first evaluation; give more epochs")
        return self._finish()

    @abstractmethod
    def train_epoch(self) -> float:
        """Run one epoch and return the mean loss per interaction, or user."""

    @abstractmethod
    def save(self) -> None:
        """Write a checkpoint into the run directory."""

    @abstractmethod
    def _require_finite(self, loss: float) -> None:
        """Look at the loss and the parameters after an epoch."""

    @abstractmethod
    def _validate(self) -> tuple[Mapping[str, float], Callable[[], None]]:
        """Measure under `VALIDATION`; return the metrics, and what keeps the embeddings that have them."""

    @abstractmethod
    def _finish(self) -> Mapping[str, Any]:
        """Report on what was best, and write the run."""

    def _agree(self, said: bool) -> bool:
        """What all who train together do where each has a clock of its own."""
        return said

    def _tracker(self) -> Tracker:
        return Tracker(self.options.epochs, self.progress.epoch, self.options.tensorboard)

    def _is_done(self) -> bool:
        waited = self.progress.epoch - self.progress.best_epoch
        limit = self.options.max_seconds
        out_of_time = limit is not None and self.progress.seconds >= limit and self.progress.best_epoch > 0
        return self.progress.epoch >= self.options.epochs or waited >= self.options.patience or out_of_time

    @contextmanager
    def _timed_epoch(self) -> Iterator[float]:
        """Count an epoch, and the time that it takes; yield the factor of its learning rates."""
        epoch, started, on_processor = self.progress.epoch, time.perf_counter(), time.process_time()
        with flush_denormals():
            is_falling = self.options.schedule == "cosine"
            yield 0.5 * (1.0 + math.cos(math.pi * epoch / self.options.epochs)) if is_falling else 1.0
        self.progress.epoch = epoch + 1
        self.progress.seconds += time.perf_counter() - started
        self.progress.processor_seconds += time.process_time() - on_processor

    def _diverged(self, flaw: str, rate: str) -> NotFiniteError:
        return NotFiniteError(
            f"{self.out}: training diverged in epoch {self.progress.epoch}: {flaw}; no run is written: start again "
            f"with a smaller {rate} or weaker settings of the method"
        )

    def _evaluate(self, loss: float) -> dict[str, float]:
        metrics, keep = self._validate()
        row = {
            "epoch": float(self.progress.epoch),
            "loss": loss,
            "seconds": round(self.progress.seconds, 3),
            "processor_seconds": round(self.progress.processor_seconds, 3),
            **metrics,
        }
        self.progress.history.append(row)
        if metrics[STOP_METRIC] > self.progress.best_value:
            keep()
            self.progress.best_value, self.progress.best_epoch = metrics[STOP_METRIC], self.progress.epoch
        return row

    def _describe(self) -> dict[str, Any]:
        """What `metrics.json` says of every training."""
        options = self.options
        rule = f"no better validation {STOP_METRIC} for {options.patience} epochs, evaluated every {options.eval_every}"
        if options.max_seconds is not None:
            rule += f"; at most {options.max_seconds:g} s of training"
        return {
            "epochs": self.progress.epoch,
            "best_epoch": self.progress.best_epoch,
            "seconds": round(self.progress.seconds, 2),
            "processor_seconds": round(self.progress.processor_seconds, 2),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "stopping_rule": rule,
        }


class Trainer(EpochLoop):
    """Trains a student (or a teacher) and writes its run directory."""

    def __init__(
        self,
        data: Interactions,
        student: Backbone,
        method: Method,
        options: TrainingOptions,
        *,
        out: Path,
        config: Mapping[str, Any],
        report: Mapping[str, Any] | None = None,
        judge: Judge | None = None,
    ) -> None:
        """Put everything on the device and make the optimizer.

        Args:
            data: Train split to learn from, validation split to stop on.
            student: The backbone, initialised.
            method: What is added to its loss.
            options: Of the training.
            out: The run directory.
            config: Settings recorded in the run and compared on resume.
            report: Further entries of `metrics.json`.
            judge: Makes further entries of the best users' and items' embeddings, shapes (|U|, d) and (|I|, d).
        """
        super().__init__(options, out, CHECKPOINT_SECONDS)
        self.device = open_device(options.device)
        self.data = data
        self.student = student.to(self.device)
        self.method = method.to(self.device)
        self.config = config
        self.report = report or {}
        self.judge = judge
        make_sampler = UserSampler if method.batches == "users" else student.sampler
        self.sampler: Sampler = make_sampler(data.train, options.batch_size)
        if moves_rows(self.student, options.optimizer):
            mark_row_sparse(self.student.features)
        parameters = [*self.student.parameters(), *self.method.parameters()]
        self.optimizer = RowAdam(parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)
        self.best: Embeddings | None = None
        self.trajectory: dict[int, Embeddings] = {}

    def resume(self) -> None:
        """Continue from the checkpoint in the run directory.

        Raises:
            RunError: There is none, or it belongs to other settings.
        """
        modules = {"student": self.student, "method": self.method}
        self.progress, best, self.trajectory = load_checkpoint(self.out, self.config, modules, self.optimizer)
        self.best = None if best is None else (best[0].to(self.device), best[1].to(self.device))

    def train_epoch(self) -> float:
        """Run one epoch and return the mean loss per interaction."""
        rng = np.random.default_rng([self.options.seed, self.progress.epoch])
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        with self._timed_epoch() as factor:
            for group in self.optimizer.param_groups:
                group["lr"] = self.options.learning_rate * factor
            self.method.begin_epoch(self.student, rng)
            solved = None if self.method.needs_teacher else self.student.solve_epoch()
            total = self._take_steps(rng, generator) if solved is None else solved
        return total / int(self.data.train.nnz)

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}", self._rate)
        for name, value in [*self.student.named_parameters(), *self.method.named_parameters()]:
            if not bool(value.isfinite().all()):
                raise self._diverged(f"'{name}' holds numbers that are not finite", self._rate)

    def _take_steps(self, rng: np.random.Generator, generator: torch.Generator) -> float:
        """Go through the batches; return the sum of their losses."""
        total = torch.zeros((), device=self.device)
        for batch in follow_steps(self.sampler.epoch(rng), self.sampler.num_batches):
            loss = self._loss(batch.to(self.device), generator)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            total += loss.detach()
        return float(total)

    def _loss(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        embeddings = self.student.embeddings()
        step = Step(batch, self.student.features, embeddings, generator)
        added = self.method.distillation_loss(step)
        if self.method.base_weight == 0 and added is not None:
            return added
        loss = self.method.base_weight * self.student.base_loss(batch, embeddings)
        return loss if added is None else loss + added

    @property
    def _rate(self) -> str:
        return f"--lr (it was {self.options.learning_rate:g})"

    def _validate(self) -> tuple[Mapping[str, float], Callable[[], None]]:
        embeddings = self.student.final_embeddings()
        for side, values in zip(("user", "item"), embeddings, strict=True):
            if flaw := find_flaw(values):
                raise self._diverged(f"{side} embeddings: {flaw}", self._rate)
        protocol = replace(VALIDATION, eval_users=self.options.eval_users)
        report = evaluate(*embeddings, self.data, protocol, progress=True)
        return report.metrics, partial(self._keep_best, embeddings)

    def _keep_best(self, embeddings: Embeddings) -> None:
        """Move what was best so far to the trajectory, thin that, and write what is best now over it."""
        if self.best is not None and self.options.keep_checkpoints:
            self.trajectory[self.progress.best_epoch] = (self.best[0].half().cpu(), self.best[1].half().cpu())
            thin_trajectory(self.trajectory, self.progress.epoch, 2 * self.options.keep_checkpoints)
        if self.best is None:
            self.best = (torch.empty_like(embeddings[0]), torch.empty_like(embeddings[1]))
        for kept, values in zip(self.best, embeddings, strict=True):
            kept.copy_(values)

    def save(self) -> None:
        """Write a checkpoint into the run directory."""
        modules = {"student": self.student, "method": self.method}
        save_checkpoint(self.out, self.config, self.progress, modules, self.optimizer, self.best, self.trajectory)

    def _finish(self) -> Mapping[str, Any]:
        best = cast("Embeddings", self.best)
        thin_trajectory(self.trajectory, self.progress.best_epoch, self.options.keep_checkpoints)
        metrics: dict[str, Any] = {
            **final_reports(*best, self.data, self.options.eval_users),
            **self.report,
            "training": {
                **self._describe(),
                "optimizer": self._optimizer_kind(),
                "checkpoints": list(self.trajectory),
            },
        }
        write_file(self.out / HISTORY_FILE, as_csv(self.progress.history))
        write_trajectory(self.out, {epoch: (u.numpy(), i.numpy()) for epoch, (u, i) in self.trajectory.items()})
        user, item = (part.cpu().numpy() for part in best)
        metrics |= self.judge(user, item) if self.judge else {}
        write_ids(self.out, self.data.user_ids, self.data.item_ids)
        write_run(self.out, self.config, user, item, metrics)
        remove_checkpoints(self.out)
        return metrics

    def _optimizer_kind(self) -> str:
        if not self.method.needs_teacher and type(self.student).solve_epoch is not Backbone.solve_epoch:
            return "closed form"
        return "row-adam" if is_row_sparse(self.student.features) else "adam"


def moves_rows(student: Backbone, kind: OptimizerKind) -> bool:
    """Say whether a student is trained by the rows of its batches."""
    is_large = len(student.features) >= ROW_ADAM_ENTITIES
    return student.is_table and (kind == "row-adam" or (kind == "auto" and is_large))


def thin_trajectory(trajectory: dict[int, Any], last: int, length: int) -> None:
    """Drop epochs in place until `length` are left, each time the one that leaves the least gap up to epoch `last`."""
    while len(trajectory) > length:
        epochs = [0, *trajectory, last]
        gaps = {epoch: after - before for before, epoch, after in zip(epochs, epochs[1:], epochs[2:], strict=False)}
        del trajectory[min(gaps, key=gaps.__getitem__)]


def final_reports(
    user_embeddings: tiles.Embeddings,
    item_embeddings: tiles.Embeddings,
    data: Interactions,
    eval_users: int | None = None,
) -> dict[str, Any]:
    """Report validation and test, under the default convention and under the public code's (`*_all_users`).

    Args:
        user_embeddings: Shape (|U|, d).
        item_embeddings: Shape (|I|, d).
        data: Splits that have no interactions are left out.
        eval_users: On how many users, as in `Protocol`.
    """
    return report_splits(partial(evaluate, user_embeddings, item_embeddings, data, progress=True), data, eval_users)


def as_csv(rows: list[dict[str, float]]) -> bytes:
    """Lay out a history, a line an evaluated epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
