"""One HTTP request and its answer, without a server; every failure has the one form of body.

{"error": {"code": 404, "status": "NOT_FOUND", "message": …, "details": […]}}, as Google's APIs have it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2, error_details_pb2, status_pb2

Header = tuple[str, str]
ALWAYS: tuple[Header, ...] = (
    ("Content-Type", "application/json; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
"""Status codes in use, in the words of RFC 9110 and 6585; 499 is nginx's."""

HTTP_STATUS: dict[int, int] = {
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.NOT_FOUND: 404,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.CANCELLED: 499,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DEADLINE_EXCEEDED: 504,
}
"""google.rpc code → HTTP status, after google/rpc/code.proto."""


@dataclass(frozen=True)
class HttpRequest:
    """A request that has arrived whole.

    Args:
        target: Path and query as they stand in the request line.
        headers: By lower-case name; what came several times is joined by ", ".
        arrival_ns: When its last byte arrived, by `perf_counter_ns`.
        is_active: Whether the caller still waits.
    """

    verb: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    arrival_ns: int
    is_active: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class HttpAnswer:
    """An answer, complete but for its length.

    Args:
        status: One of `REASONS`.
    """

    status: int
    headers: tuple[Header, ...]
    body: bytes


Work = Callable[[], HttpAnswer]
"""What is left to do for a request, on a thread that may take its time; raises nothing. It must be called."""


class Application(Protocol):
    """What answers requests."""

    def begin(self, request: HttpRequest) -> HttpAnswer | Work:
        """Answer at once, or say what is left to do. Never waits, and raises nothing."""
        ...


def problem(status: int, message: str, *headers: Header) -> HttpAnswer:
    """The answer to what never became a call.

    Args:
        headers: Beside those that every answer has.
    """
    return HttpAnswer(status, (*ALWAYS, *headers), error_body(status, REASONS[status], message))


def refused(status: status_pb2.Status) -> tuple[int, bytes]:
    """HTTP status and body of a google.rpc.Status."""
    details = []
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2], None)
        if kind is not None:
            detail = kind()
            packed.Unpack(detail)
            details.append({"@type": packed.type_url, **MessageToDict(detail, preserving_proto_field_name=True)})
    http_status = HTTP_STATUS.get(status.code, 500)
    return http_status, error_body(http_status, code_pb2.Code.Name(status.code), status.message, details)


def error_body(status: int, name: str, message: str, details: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """The one form that a failure has.

    Args:
        name: Of the failure; it is written as `NOT_FOUND` is.
    """
    word = name.upper().replace(" ", "_")
    error = {"code": status, "status": word, "message": message, "details": list(details)}
    return json.dumps({"error": error}, ensure_ascii=False).encode()
