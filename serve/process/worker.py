"""A worker: a server on shared ports, in a process of its own, tied to its supervisor by one pipe; both ends of it.

The worker (`work`) says on the pipe that it is ready, or why it cannot be. Then the supervisor asks there for the
worker's series, with an empty message each time (`WorkerProcess`). When the pipe closes, the supervisor is gone and the
worker stops in order: nobody would restart, scrape or stop it any more.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import disable_created_metrics, generate_latest

from serve.process.options import ServerOptions
from serve.telemetry.logs import LogWriter, log_to_stderr

if TYPE_CHECKING:
    from serve.process.server import Server

LOG = logging.getLogger("lowpass.serve")
SUPERVISOR_GONE = "the supervisor is gone"
# A fresh interpreter: gRPC's threads and FAISS do not survive a fork.
SPAWN = multiprocessing.get_context("spawn")
REAPED_WITHIN = 5.0


@dataclass(frozen=True)
class Ready:
    """A worker serves.

    Args:
        number: Of the worker, from 0.
        content: Its models and transport.
    """

    number: int
    content: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """A worker cannot start; it ends next.

    Args:
        number: Of the worker, from 0.
        error: Why.
        exit_code: Whose fault that is, as the command line tells.
    """

    number: int
    error: str
    exit_code: int


@dataclass(frozen=True)
class Ended:
    """The worker of this number has ended, and says nothing more."""

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
        number: Which one it is.
        report: Told what becomes of it, from a thread.
    """

    def __init__(self, options: ServerOptions, number: int, report: Report) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        name = f"lowpass-worker-{number}"
        self._process = SPAWN.Process(target=work, args=(options, number, theirs), name=name, daemon=True)
        # A terminal interrupts every process in front of it; the supervisor hears it too and sends SIGTERM. The worker
        # inherits what is blocked, so that it hears nothing even while it is still importing.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
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


def work(options: ServerOptions, number: int, supervisor: Connection) -> None:
    """Serve until SIGTERM, or until the supervisor is gone; the body of a worker's process.

    Args:
        options: How; the addresses are shared with the other workers.
        number: From 0.
        supervisor: The worker's end of the pipe.
    """
    with log_to_stderr(fields={"worker": number}) as log:
        raise SystemExit(_serve(options, log, supervisor))


def _serve(options: ServerOptions, log: LogWriter, supervisor: Connection) -> int:
    # Only here: FAISS and ONNX Runtime would cost the supervisor memory, and it never asks them anything.
    from serve.process.server import Server, stop_in_order

    disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated there
    stops: SimpleQueue[str] = SimpleQueue()
    accepting = Event()

    def stop(reason: str) -> None:
        if not accepting.is_set():
            os._exit(1)  # Nothing is served yet, and loading may take long.
        stops.put(reason)

    signal.signal(signal.SIGTERM, lambda *_: stop(signal.SIGTERM.name))
    try:
        server = Server(options)
        server.metrics.watch_log(lambda: log.dropped)
        Thread(target=_answer, args=(supervisor, server, stop), daemon=True).start()
        # Whoever listens on a shared port is given connections at once, so only who can answer does.
        server.prepare()
        accepting.set()
        server.start()
    except Exception as error:
        _tell(supervisor, _failure(error))
        return 1
    models = [f"{model.summary.name}:{model.summary.version}" for model in server.store.models]
    _tell(supervisor, {"models": models, "transport": server.transport_name})
    return stop_in_order(server, stops.get())


def _tell(supervisor: Connection, content: Mapping[str, object]) -> None:
    # Where nobody listens any more, `_answer` hears of it.
    with suppress(OSError):
        supervisor.send_bytes(json.dumps(content).encode())


def _answer(supervisor: Connection, server: Server, stop: Callable[[str], None]) -> None:
    try:
        while True:
            supervisor.recv_bytes()
            supervisor.send_bytes(_series(server))
    except (EOFError, OSError):
        stop(SUPERVISOR_GONE)


def _series(server: Server) -> bytes:
    try:
        return generate_latest(server.metrics.registry)
    except Exception:
        LOG.exception("defect in the series")
        return b""


def _failure(error: Exception) -> dict[str, object]:
    exit_code = getattr(error, "exit_code", None)
    if exit_code is not None:
        return {"error": str(error), "exit_code": exit_code}
    LOG.error("defect while starting", exc_info=error)
    return {"error": f"internal error: {type(error).__name__}: {error}", "exit_code": 1}
