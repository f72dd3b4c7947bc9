"""A job's folder: its lock, its runs, what its steps made, and what of all that may go.

<job>/lock                    held by whoever runs the job; says who that is
<job>/latest                  a link to the latest run
<job>/runs/<UTC time>/        state.json, log.jsonl, report.html
<job>/steps/<step>-<key>/     what a step made, and step.json, written last
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from jobs.errors import JobLocked, UnknownJob
from jobs.record.state import PUBLISHED, STATE_FILE, RunState, now, read_state

LOCK, LATEST, RUNS, STEPS = "lock", "latest", "runs", "steps"
LOOKS, LOOK_SECONDS = 5, 0.05


class JobFolder:
    """The folder of a job.

    Args:
        path: It is made by the first run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def steps(self) -> Path:
        """Where steps keep what they made."""
        return self.path / STEPS

    def run_folder(self, run: str) -> Path:
        """The folder of a run."""
        return self.path / RUNS / run

    def runs(self) -> list[str]:
        """Names of the runs, latest first."""
        folder = self.path / RUNS
        if not folder.is_dir():
            return []
        return sorted((path.name for path in folder.iterdir() if (path / STATE_FILE).is_file()), reverse=True)

    def states(self) -> Iterator[RunState]:
        """States of the runs that can be read, latest first."""
        for run in self.runs():
            with suppress(UnknownJob):
                yield read_state(self.run_folder(run))

    def latest(self) -> RunState | None:
        """The latest run, or None."""
        return next(self.states(), None)

    def last_published(self) -> RunState | None:
        """The latest run that published, or None."""
        return next((state for state in self.states() if state.outcome == PUBLISHED), None)

    def new_run(self) -> Path:
        """Make the folder of a run, named by the time, and let `latest` point to it."""
        base = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        number = 0
        while True:
            folder = self.run_folder(f"{base}-{number}" if number else base)
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                number += 1
                continue
            link = self.path / f".{LATEST}.draft"
            link.unlink(missing_ok=True)
            link.symlink_to(Path(RUNS) / folder.name)
            link.replace(self.path / LATEST)
            return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who runs the job; the lock ends with its process, however that one ends.

        Raises:
            JobLocked: Somebody else is.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _take(handle):
                raise JobLocked(f"{self.path}: is run by {_holder(handle)}; wait until it ends, or stop it")
            says = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
            os.ftruncate(handle, 0)
            os.pwrite(handle, (json.dumps(says) + "\n").encode(), 0)
            yield
        finally:
            os.close(handle)

    def is_locked(self) -> bool:
        """Whether somebody runs the job now."""
        try:
            handle = os.open(self.path / LOCK, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def holder(self) -> str:
        """Who runs the job, in words."""
        handle = os.open(self.path / LOCK, os.O_RDONLY)
        try:
            return _holder(handle)
        finally:
            os.close(handle)

    def clean(self, keep_runs: int, served: set[str], made: set[str]) -> None:
        """Remove old runs, and what steps made that nobody needs any more.

        Args:
            keep_runs: So many runs keep their record.
            served: Versions that a label points to: the runs that published them stay, with what their steps made.
            made: Names of folders of steps that stay too.
        """
        needed = set(made)
        last = self.last_published()
        for number, state in enumerate(list(self.states())):
            is_served = state.published is not None and state.published["version"] in served
            if is_served or (last is not None and state.run == last.run):
                needed |= {step_folder(step.name, step.key) for step in state.steps if step.key}
            elif number >= keep_runs:
                shutil.rmtree(self.run_folder(state.run), ignore_errors=True)
        for path in self.steps.iterdir() if self.steps.is_dir() else ():
            if path.name not in needed:
                shutil.rmtree(path, ignore_errors=True)


def step_folder(step: str, key: str) -> str:
    """Name of the folder of what a step made from inputs and settings of that key."""
    return f"{step}-{key[:16]}"


def _take(handle: int) -> bool:
    """Take the lock; whoever only looks whether it is taken has it for an instant."""
    for _ in range(LOOKS):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_SECONDS)
        else:
            return True
    return False


def _holder(handle: int) -> str:
    try:
        says = json.loads(os.pread(handle, 4096, 0))
        return f"process {says['pid']} on {says['host']} since {says['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not said who it is"
