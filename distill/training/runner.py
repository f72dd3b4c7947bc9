"""Many trainings: side by side in processes of their own, gone on with where they were cut off, never done twice.

A child is a fresh process that starts in 20 ms: a server that has imported torch once forks it. A crash takes nothing
else with it, a peak of memory is its own, and a child ends with the process that started it, however that one ends.
"""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

from tqdm import tqdm

from distill.data.interactions import Interactions, load_interactions
from distill.errors import NotFiniteError, RunError
from distill.run import CONFIG_FILE, METRICS_FILE, Run, open_run
from distill.training.checkpoint import STATE_FILE, require_same_settings
from distill.training.job import Job, describe, run_job

K = TypeVar("K", bound=Hashable)
PRELOADED = [__name__, "torch._dynamo"]
"""What the server imports before it forks; torch's optimizers import the second, which takes as long as torch."""
LISTS_FOLDER = ".lists"
"""Beside the runs of students that share a teacher; hidden, so that a pattern of runs does not name it."""
Work = Callable[[], object]
"""What a child does: a function of a module, or a `functools.partial` of one, with arguments that can be sent."""


@dataclass(frozen=True)
class Training:
    """A training as a child is handed it: the work that leaves a finished run in `out`.

    Attributes:
        job: What to train.
        data: The data directory.
        out: The run directory.
        teacher: The teacher's run, or None.
    """

    job: Job
    data: Path
    out: Path
    teacher: Path | None = None

    def __call__(self) -> None:
        """Load what is needed and train."""
        teacher = None if self.teacher is None else open_run(self.teacher)
        ensure_run(self.job, load_interactions(self.data), self.out, teacher)


def ensure_run(job: Job, data: Interactions, out: Path, teacher: Run | None = None) -> None:
    """Train, go on with a training that was cut off, or take the run that is finished.

    Raises:
        RunError: The run in `out` has other settings, or as `run_job`.
        SettingError: As `run_job`.
    """
    if not is_finished(job, data, out, teacher):
        run_job(job, data, out, teacher=teacher, lists=out.parent / LISTS_FOLDER, resume=(out / STATE_FILE).exists())


def is_finished(job: Job, data: Interactions, out: Path, teacher: Run | None = None) -> bool:
    """Whether `out` holds what `run_job` would leave there.

    Raises:
        RunError: A finished run of other settings is there.
    """
    if not (out / METRICS_FILE).exists():
        return False
    path = out / CONFIG_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{out}: unreadable run ({error}); delete it to train it again") from error
    remedy = "give another --out, or delete the run to train it again"
    require_same_settings(path, found, describe(job, data, teacher), remedy)
    return True


def train_all(
    jobs: Mapping[str, Job],
    data: Path,
    runs: Path,
    teacher: Path | None = None,
    *,
    processes: int = 1,
    diverged: dict[str, str] | None = None,
) -> list[Run]:
    """Train what is missing in a folder of runs, and open all.

    Args:
        jobs: Name of the run directory → what to train.
        data: The data directory.
        runs: The folder of the run directories.
        teacher: The teacher's run, or None.
        processes: How many train at a time.
        diverged: Where it is to be noted which trainings diverged, and why; they are an error like others when None.

    Returns:
        The finished runs, in the order of `jobs`.

    Raises:
        RunError: A finished run has other settings, or a training failed.
        NotFiniteError: A training diverged.
    """
    loaded, opened = load_interactions(data), None if teacher is None else open_run(teacher)
    missing = [name for name, job in jobs.items() if not is_finished(job, loaded, runs / name, opened)]
    trainings = {name: Training(jobs[name], data, runs / name, teacher) for name in missing}
    done = len(jobs) - len(missing)
    run_all(trainings, processes, title="training", unit="run", done=done, diverged=diverged)
    return [open_run(runs / name) for name in jobs if name not in (diverged or {})]


def run_all(
    work: Mapping[str, Work],
    processes: int,
    *,
    title: str,
    unit: str,
    done: int = 0,
    diverged: dict[str, str] | None = None,
) -> None:
    """Do all work, each in a process of its own, behind a bar that estimates the time left.

    Args:
        work: Name → what is done, in this order.
        processes: How many run at a time.
        title: Of the bar.
        unit: One piece of work, for the bar.
        done: Pieces that were finished before, for the bar.
        diverged: As in `train_all`.

    Raises:
        NotFiniteError: Some work diverged; the others are done.
        RunError: Some work was refused or killed; the others are done.
        ChildFailed: Some work failed by a fault of ours; the others are done.
    """
    waiting, failures = deque(work), []
    bar = tqdm(total=done + len(work), initial=done, desc=title, unit=unit, disable=None)
    with Children[str](processes) as children, bar:
        while waiting or children.busy:
            while waiting and not children.full:
                name = waiting.popleft()
                children.start(name, work[name])
            for outcome in children.wait():
                if outcome.status == "diverged" and diverged is not None:
                    diverged[outcome.key] = outcome.error
                elif outcome.status != "done":
                    failures.append(_failure(outcome))
                bar.set_postfix_str(outcome.key)
                bar.update()
    if failures:
        raise failures[0]


class ChildFailed(Exception):
    """A child ended by a fault of ours; the message holds its traceback."""


@dataclass(frozen=True)
class Outcome(Generic[K]):
    """How a child ended.

    Attributes:
        key: As given to `Children.start`.
        status: "refused" by an error that the user can act on, "diverged" by `NotFiniteError`, "failed" by any other
            one; "killed" where the process ended without a word, as the kernel ends one that takes too much memory.
        error: What went wrong, the last line says it best; empty where it is done.
    """

    key: K
    status: Literal["done", "refused", "diverged", "failed", "killed"] = "done"
    error: str = ""


def _failure(outcome: Outcome[str]) -> Exception:
    if outcome.status == "diverged":
        return NotFiniteError(outcome.error)
    if outcome.status == "refused":
        return RunError(outcome.error)
    if outcome.status == "killed":
        return RunError(
            f"{outcome.key}: {outcome.error}, as where memory runs out; run it again to go on, fewer at a time"
        )
    return ChildFailed(f"{outcome.key}: {outcome.error}")


class Children(Generic[K]):
    """Up to a number of child processes at once, one a piece of work. Leaving the context ends those that still run."""

    def __init__(self, count: int) -> None:
        """Start nothing yet.

        Args:
            count: Processes at once.
        """
        self.count = count
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._running: dict[Connection, tuple[K, BaseProcess]] = {}

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
        """Whether any child runs."""
        return bool(self._running)

    @property
    def full(self) -> bool:
        """Whether no more children can start."""
        return len(self._running) >= self.count

    @property
    def pids(self) -> dict[K, int]:
        """Key → process id of the children that run."""
        return {key: process.pid or 0 for key, process in self._running.values()}

    def start(self, key: K, work: Work) -> None:
        """Start a child; `key` names its outcome."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_run, args=(sender, work, self.count > 1), daemon=True)
        process.start()
        sender.close()
        self._running[receiver] = (key, process)

    def wait(self) -> list[Outcome[K]]:
        """Block until at least one child has ended."""
        ended: list[Outcome[K]] = []
        ready = wait(list(self._running))
        for receiver in [receiver for receiver in self._running if receiver in ready]:
            key, process = self._running.pop(receiver)
            try:
                ended.append(Outcome(key, *receiver.recv()))
            except EOFError:
                process.join()
                ended.append(Outcome(key, "killed", f"its process ended with code {process.exitcode}"))
            receiver.close()
            process.join()
        return ended


def _run(sender: Connection, work: Work, is_quiet: bool) -> None:
    """The body of a child: sends its status, and what went wrong; one at a time shows how far it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends its children itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with (
        redirect_stderr(io.StringIO()) if is_quiet else nullcontext()
    ):  # bars of several trainings would write over each other
        try:
            work()
            sender.send(("done", ""))
        except NotFiniteError as error:
            sender.send(("diverged", str(error)))
        except Exception as error:
            refused = hasattr(error, "exit_code")
            sender.send(("refused", str(error)) if refused else ("failed", traceback.format_exc()))


def _end_with_parent() -> None:
    """A child left behind would write where its successor does."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
