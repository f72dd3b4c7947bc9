"""A worker: a server on shared ports, in a process of its own, tied to its supervisor by one pipe; both ends of it.

The worker (`work`) says on the pipe that it is ready, or why it cannot be. The supervisor asks there for signs of life,
and for the worker's series (`WorkerProcess`). When the pipe closes, the supervisor is gone and the worker stops in
order: nobody would restart, scrape or stop it any more.

Where models may be changed, a worker that has loaded offers the admin service on a Unix socket, and listens to callers
only when the supervisor has told it there what was changed since the start (`WorkersAdmin`).
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
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import disable_created_metrics, generate_latest

from serve.process.options import ServerOptions
from serve.telemetry.logs import LogWriter, log_to_stderr
from serve.transport.address import UNIX

if TYPE_CHECKING:
    from serve.process.server import Server
    from serve.process.workers_admin import WorkersAdmin

LOG = logging.getLogger("lowpass.serve")
SUPERVISOR_GONE = "the supervisor is gone"
# A fresh interpreter: gRPC's threads and FAISS do not survive a fork.
SPAWN = multiprocessing.get_context("spawn")
REAPED_WITHIN = 5.0
SERIES, ALIVE, LOADED, SERVE = b"series", b"alive", b"loaded", b"serve"
"""Asked by the supervisor; asked and answered; said by the worker before it serves; allowed by the supervisor then."""


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

    def is_alive(self) -> bool:
        """Whether it has given a sign of life since this was asked before; does not wait."""
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
        admin: Changes its models; None where nobody does.
    """

    def __init__(self, options: ServerOptions, number: int, report: Report, admin: WorkersAdmin | None = None) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._admin = admin
        self._socket = "" if admin is None else admin.new_socket(number)
        name = f"lowpass-worker-{number}"
        arguments = (options, number, theirs, self._socket)
        self._process = SPAWN.Process(target=work, args=arguments, name=name, daemon=True)
        # A terminal interrupts every process in front of it; the supervisor hears it too and sends SIGTERM. The worker
        # inherits what is blocked, so that it hears nothing even while it is still importing.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # Only the worker holds its end, so that its death closes the pipe.
        theirs.close()
        self._sending = Lock()
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        self._is_asked = False
        self._lives = Event()
        self._lives.set()
        Thread(target=self._listen, args=(number, report), name=name, daemon=True).start()

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

    def is_alive(self) -> bool:
        """Whether it has given a sign of life since this was asked before; see `Worker`."""
        # Who has not answered yet is not asked again: many questions would fill the pipe.
        if not self._lives.is_set():
            return False
        self._lives.clear()
        self._ask(ALIVE)
        return True

    def ask_series(self) -> None:
        """Ask for its series, without waiting; see `Worker`."""
        while not self._answers.empty():
            self._answers.get()
            self._is_asked = False
        if self._is_asked:
            return  # A second question would not be answered sooner, and many would fill the pipe.
        self._is_asked = self._ask(SERIES)

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

    def _ask(self, what: bytes) -> bool:
        try:
            with self._sending:
                self._pipe.send_bytes(what)
        except OSError:
            return False
        return True

    def _listen(self, number: int, report: Report) -> None:
        is_up = False
        try:
            while True:
                message = self._pipe.recv_bytes()
                if message == ALIVE:
                    self._lives.set()
                elif message == LOADED:
                    Thread(target=self._catch_up, args=(number,), daemon=True).start()
                elif is_up:
                    self._answers.put(message)
                else:
                    first, is_up = json.loads(message), True
                    report(Failed(number, **first) if "error" in first else Ready(number, first))
        except (EOFError, OSError):
            if self._admin is not None:
                self._admin.leave(number, self._socket)
            self._answers.put(b"")
            report(Ended(number))

    def _catch_up(self, number: int) -> None:
        try:
            if self._admin is not None:
                self._admin.join(number, self._socket)
        except Exception:
            LOG.exception("defect while a worker caught up", extra={"fields": {"worker": number}})
        self._ask(SERVE)


class _Supervisor:
    """The worker's end of the pipe, written to by several threads."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = Lock()

    def say(self, message: bytes) -> None:
        with self._sending:
            self._pipe.send_bytes(message)

    def tell(self, content: Mapping[str, object]) -> None:
        # Where nobody listens any more, `_answer` hears of it.
        with suppress(OSError):
            self.say(json.dumps(content).encode())

    def hear(self) -> bytes:
        return self._pipe.recv_bytes()


def work(options: ServerOptions, number: int, supervisor: Connection, admin_socket: str = "") -> None:
    """Serve until SIGTERM, or until the supervisor is gone; the body of a worker's process.

    Args:
        options: How; the addresses are shared with the other workers.
        number: From 0.
        supervisor: The worker's end of the pipe.
        admin_socket: Where the supervisor changes models, unix:PATH; empty for nowhere.
    """
    with log_to_stderr(fields={"worker": number}) as log:
        raise SystemExit(_serve(options, log, _Supervisor(supervisor), admin_socket))


def _serve(options: ServerOptions, log: LogWriter, supervisor: _Supervisor, admin_socket: str) -> int:
    # Only here: FAISS and ONNX Runtime would cost the supervisor memory, and it never asks them anything.
    from serve.process.server import Server, stop_in_order

    disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated there
    stops: SimpleQueue[str] = SimpleQueue()
    accepting, allowed = Event(), Event()

    def stop(reason: str) -> None:
        if not accepting.is_set():
            os._exit(1)  # Nothing is served yet, and loading may take long.
        stops.put(reason)

    signal.signal(signal.SIGTERM, lambda *_: stop(signal.SIGTERM.name))
    try:
        server = Server(options)
        server.metrics.watch_log(lambda: log.dropped)
        Thread(target=_answer, args=(supervisor, server, allowed, stop), daemon=True).start()
        # Whoever listens on a shared port is given connections at once, so only who can answer does.
        server.prepare()
        if admin_socket:
            server.open_admin(admin_socket)
            supervisor.say(LOADED)
            allowed.wait()
        accepting.set()
        server.start()
    except Exception as error:
        supervisor.tell(_failure(error))
        return 1
    models = [f"{model.summary.name}:{model.summary.version}" for model in server.store.models]
    supervisor.tell({"models": models, "transport": server.transport_name})
    reason = stops.get()
    exit_code = stop_in_order(server, reason)
    if admin_socket and reason == SUPERVISOR_GONE:
        # Nobody else removes the folder of the sockets; the last worker finds it empty.
        with suppress(OSError):
            Path(admin_socket.removeprefix(UNIX)).parent.rmdir()
    return exit_code


def _answer(supervisor: _Supervisor, server: Server, allowed: Event, stop: Callable[[str], None]) -> None:
    try:
        while True:
            asked = supervisor.hear()
            if asked == SERIES:
                supervisor.say(_series(server))
            elif asked == SERVE:
                allowed.set()
            elif not server.is_stuck:
                supervisor.say(ALIVE)
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
