"""A worker as its supervisor sees it."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, Protocol

from serve.process.options import ServerOptions

# A fresh interpreter: gRPC's threads and FAISS do not survive a fork.
SPAWN = multiprocessing.get_context("spawn")
REAPED_WITHIN = 5.0


@dataclass(frozen=True)
class Ready:
    """A worker serves.

    Args:
        number: Which one.
        content: Its models and transport.
    """

    number: int
    content: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """A worker cannot start; it ends next.

    Args:
        number: Which one.
        error: Why.
        exit_code: Whose fault that is, as the command line tells.
    """

    number: int
    error: str
    exit_code: int


@dataclass(frozen=True)
class Ended:
    """A worker has ended, and says nothing more.

    Args:
        number: Which one.
    """

    number: int


Report = Callable[[Ready | Failed | Ended], None]


class Worker(Protocol):
    """What a supervisor needs of a started worker."""

    @property
    def pid(self) -> int:
        """Of its process."""
        ...

    def terminate(self) -> None:
        """Let it stop in order."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def reap(self) -> int:
        """Its exit code, once it has `Ended`; negative for the signal that killed it."""
        ...

    def ask_series(self) -> None:
        """Ask for its series, without waiting."""
        ...

    def series(self, give_up: float) -> str | None:
        """Its series in Prometheus's text format, or None where they do not come before `give_up` (monotonic)."""
        ...


class WorkerProcess:
    """A `Worker` in a process of its own. Used from two threads: one supervises, another asks for series.

    Args:
        options: How it serves.
        number: Which one it is.
        report: Told what becomes of it, from a thread.
    """

    def __init__(self, options: ServerOptions, number: int, report: Report) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        name = f"lowpass-worker-{number}"
        self._process = SPAWN.Process(target=_work, args=(options, number, theirs), name=name, daemon=True)
        self._process.start()
        # Only the worker holds its end, so that its death closes the pipe.
        theirs.close()
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        self._is_asked = False
        Thread(target=_listen, args=(self._pipe, number, self._answers, report), name=name, daemon=True).start()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid or 0

    def terminate(self) -> None:
        """Let it stop in order."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def reap(self) -> int:
        """Its exit code, once it has `Ended`; see `Worker`."""
        self._process.join(REAPED_WITHIN)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        return self._process.exitcode or 0

    def ask_series(self) -> None:
        """Ask for its series, without waiting; see `Worker`."""
        while not self._answers.empty():
            self._answers.get()
            self._is_asked = False
        if self._is_asked:
            return  # A second question would not be answered sooner, and many would fill the pipe.
        try:
            self._pipe.send_bytes(b"")
            self._is_asked = True
        except OSError:
            pass

    def series(self, give_up: float) -> str | None:
        """Its series, or None where they do not come in time; see `Worker`."""
        if not self._is_asked:
            return None
        try:
            answer = self._answers.get(timeout=max(0.0, give_up - monotonic()))
        except Empty:
            return None
        self._is_asked = False
        return answer.decode() or None


def _listen(pipe: Connection, number: int, answers: SimpleQueue[bytes], report: Report) -> None:
    try:
        first = json.loads(pipe.recv_bytes())
        report(Failed(number, **first) if "error" in first else Ready(number, first))
        while True:
            answers.put(pipe.recv_bytes())
    except (EOFError, OSError):
        answers.put(b"")
        report(Ended(number))


def _work(options: ServerOptions, number: int, supervisor: Connection) -> None:
    # Only here: FAISS and ONNX Runtime would cost the supervisor memory, and it never asks them anything.
    from serve.process.worker import work

    work(options, number, supervisor)
