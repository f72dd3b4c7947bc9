"""Log lines as JSON, one object per event on standard error, and the access log: a line for a share of the requests.

A request has an id, its caller's own or a new one, which comes back to the caller and stands in every line on it.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from serve.answers.call import Call

LOGGER = "lowpass"
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


def log_to_stderr(level: str = "INFO", fields: Mapping[str, object] | None = None) -> None:
    """Send the server's events, and grpcio's, to standard error.

    Args:
        level: Least level of the server's events.
        fields: Added to every line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(fields))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(LOGGER).setLevel(level)


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
