"""A worker: a server on shared ports, in a process of its own, tied to its supervisor by one pipe.

The worker says on the pipe that it is ready, or why it cannot be. Then the supervisor asks there for the worker's
series, with an empty message each time. When the pipe closes, the supervisor is gone and the worker stops in order:
nobody would restart, scrape or stop it any more.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread

from prometheus_client import disable_created_metrics, generate_latest

from serve.process.options import ServerOptions
from serve.process.server import Server, stop_in_order
from serve.telemetry.logs import log_to_stderr

LOG = logging.getLogger("lowpass.serve")
SUPERVISOR_GONE = "the supervisor is gone"


def work(options: ServerOptions, number: int, supervisor: Connection) -> None:
    """Serve until SIGTERM, or until the supervisor is gone; the body of a worker's process.

    Args:
        options: How; the addresses are shared with the other workers.
        number: Which worker this is, from 0.
        supervisor: The worker's end of the pipe.
    """
    log_to_stderr(fields={"worker": number})
    disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated there
    stops: SimpleQueue[str] = SimpleQueue()
    accepting = Event()

    def stop(reason: str) -> None:
        if not accepting.is_set():
            os._exit(1)  # Nothing is served yet, and loading may take long.
        stops.put(reason)

    # A terminal interrupts every process in front of it; the supervisor hears it too and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop(signal.SIGTERM.name))
    try:
        server = Server(options)
        Thread(target=_answer, args=(supervisor, server, stop), daemon=True).start()
        # Whoever listens on a shared port is given connections at once, so only who can answer does.
        server.prepare()
        accepting.set()
        server.start()
    except Exception as error:
        _tell(supervisor, _failure(error))
        raise SystemExit(1) from error
    models = [f"{model.summary.name}:{model.summary.version}" for model in server.store.models]
    _tell(supervisor, {"models": models, "transport": server.transport_name})
    raise SystemExit(stop_in_order(server, stops.get()))


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
