"""Log lines as JSON, one object per event on standard error, and the access log: a line for a share of the requests.

A request has an id, its caller's own or a new one, which comes back to the caller and stands in every line on it.

Lines wait in a queue for one thread that writes them, so that a pipe nobody reads holds no request and no stop. What
finds the queue full is dropped and counted. The library's `QueueListener` is not used: its `stop` waits for the pipe.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import select
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from queue import Full, Queue
from threading import Thread

from serve.answers.call import Call

LOGGER = "lowpass"
STDERR = 2
WAITING_AT_MOST = 1024
"""Lines that wait to be written, a MiB or two at most."""
STOP_WITHIN = 1.0
"""Longest time for the lines that are left when stopping, in seconds."""
LOG = logging.getLogger("lowpass.access")
HEADER = "x-request-id"
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class JsonFormatter(logging.Formatter):
    """One JSON object per record; `extra={"fields": {...}}` adds to it.

    Args:
        fields: Added to every record.
    """

    def __init__(self, fields: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._fields,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class LogWriter(QueueHandler):
    """Writes lines to a descriptor from a thread of its own; whoever logs waits for nothing.

    Args:
        descriptor: Written to without Python's buffers, whose locks would hold the end of the process.
        waiting_at_most: Lines; what comes beyond is dropped.
    """

    def __init__(self, descriptor: int = STDERR, waiting_at_most: int = WAITING_AT_MOST) -> None:
        self._lines: Queue[logging.LogRecord | None] = Queue(waiting_at_most)
        super().__init__(self._lines)
        self._descriptor = descriptor
        self._refused = self._unwritten = 0
        self._thread = Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were never written."""
        return self._refused + self._unwritten

    def enqueue(self, record: logging.LogRecord) -> None:
        """Let a line wait, or drop it; called under the handler's lock."""
        try:
            self._lines.put_nowait(record)
        except Full:
            self._refused += 1

    def finish(self, within: float = STOP_WITHIN) -> None:
        """Write what waits, if that is quick, and nothing more."""
        # A full queue is that of a pipe that nobody reads.
        with suppress(Full):
            self._lines.put(None, timeout=within)
            self._thread.join(within)

    def _write_all(self) -> None:
        while (record := self._lines.get()) is not None:
            try:
                self._write(f"{record.msg}\n".encode(errors="backslashreplace"))
            except OSError:
                self._unwritten += 1

    def _write(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # Whoever shares it with us does not want to wait for it.
                select.select([], [self._descriptor], [])


@contextmanager
def log_to_stderr(level: str = "INFO", fields: Mapping[str, object] | None = None) -> Iterator[LogWriter]:
    """Send the server's events, and grpcio's, to standard error, and end with what waits to be written there.

    Args:
        level: Least level of the server's events.
        fields: Added to every line.
    """
    # Started without it, 2 may be the number of a caller's connection by now.
    writer = LogWriter(STDERR if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY))
    writer.setFormatter(JsonFormatter(fields))
    logging.basicConfig(handlers=[writer], level=logging.WARNING, force=True)
    logging.getLogger(LOGGER).setLevel(level)
    try:
        yield writer
    finally:
        logging.getLogger().removeHandler(writer)
        writer.finish()


def request_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's own id of a request where it sends a plain one, else a new one."""
    for name, value in metadata:
        if name == HEADER and isinstance(value, str) and _ID.fullmatch(value):
            return value
    return os.urandom(8).hex()


def trace_of(call: Call) -> dict[str, str]:
    """The trace a request belongs to, its own or its caller's (W3C `traceparent`), as a field of a log line."""
    if call.trace_id:
        return {"trace_id": call.trace_id}
    found = (_TRACE.match(value) for name, value in call.metadata if name == "traceparent" and isinstance(value, str))
    return next(({"trace_id": match[1]} for match in found if match is not None), {})


@dataclass(frozen=True)
class AccessLog:
    """Writes a line for a share of the finished requests.

    Args:
        share: From 0 for none to 1 for all.
    """

    share: float = 0.0

    def note(self, method: str, call: Call, code: str) -> None:
        """Take note of a finished request.

        Args:
            method: Its name.
            call: It.
            code: gRPC status name.
        """
        if self.share == 0.0 or random.random() >= self.share:  # noqa: S311 - draws a sample, keeps no secret
            return
        fields = {
            "request_id": call.request_id,
            "method": method,
            "model": call.model,
            "version": call.version,
            "code": code,
            "queue_us": call.queue_ns // 1000,
            "total_us": call.age_ns // 1000,
            **trace_of(call),
        }
        LOG.info("request", extra={"fields": fields})


NO_LOG = AccessLog()
