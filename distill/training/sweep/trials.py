"""Trials side by side: a fresh process each, so that a crash takes nothing with it and a peak of memory is its own."""

from __future__ import annotations

import io
import signal
import traceback
from contextlib import redirect_stderr
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from distill.data.interactions import load_interactions
from distill.errors import DistillError
from distill.run import METRICS_FILE, open_run
from distill.training.checkpoint import STATE_FILE
from distill.training.child_process import end_with_parent
from distill.training.job import Job, run_job


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        number: Its number in the sweep.
        job: What is trained.
        data: The data directory.
        teacher: The teacher's run, or None.
        out: The run directory; a run that was cut off there is continued.
    """

    number: int
    job: Job
    data: Path
    teacher: Path | None
    out: Path


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        trial: Which.
        error: What went wrong, the last line says it best; None where the run directory is finished.
        killed: Whether its process died without a word, as the kernel ends one that takes too much memory.
    """

    trial: Trial
    error: str | None = None
    killed: bool = False


class Workers:
    """Runs up to a number of trials at once. Leaving the context ends those that still run."""

    def __init__(self, count: int) -> None:
        """Start nothing yet.

        Args:
            count: Processes at once.
        """
        self.count = count
        self._context = get_context("spawn")
        self._running: dict[Connection, tuple[Trial, BaseProcess]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self._running.values():
            process.terminate()
        for _, process in self._running.values():
            process.join()

    @property
    def busy(self) -> bool:
        """Whether any trial runs."""
        return bool(self._running)

    @property
    def full(self) -> bool:
        """Whether no more trials can start."""
        return len(self._running) >= self.count

    def start(self, trial: Trial) -> None:
        """Start a trial; one whose run is finished already costs next to nothing."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_run, args=(sender, trial), daemon=True)
        process.start()
        sender.close()
        self._running[receiver] = (trial, process)

    def wait(self) -> list[Outcome]:
        """Block until at least one trial has ended."""
        ended = []
        ready = wait(list(self._running))
        for receiver in [receiver for receiver in self._running if receiver in ready]:
            trial, process = self._running.pop(receiver)
            try:
                ended.append(Outcome(trial, receiver.recv()))
            except EOFError:
                process.join()
                ended.append(Outcome(trial, f"its process ended with code {process.exitcode}", killed=True))
            receiver.close()
            process.join()
        return ended


def _run(sender: Connection, trial: Trial) -> None:
    """The body of a trial's process: sends None, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep hears it too, and ends its trials itself
    end_with_parent()
    with redirect_stderr(io.StringIO()):
        try:
            if not (trial.out / METRICS_FILE).exists():
                _train(trial)
            sender.send(None)
        except DistillError as error:
            sender.send(str(error))
        except Exception:
            sender.send(traceback.format_exc())


def _train(trial: Trial) -> None:
    teacher = None if trial.teacher is None else open_run(trial.teacher)
    resume = (trial.out / STATE_FILE).exists()
    run_job(trial.job, load_interactions(trial.data), trial.out, teacher=teacher, resume=resume)
