"""The errors that a client raises, with the server's details parsed.

RecommenderError            whatever else the server said; `code` is the gRPC status name
├── InvalidQuery            a field is wrong: `violations`
├── NotFoundByServer        unknown user, item, model, version or label: `resource_type`, `resource_name`
├── KeyRefused              no key was shown, or none that may call
├── NotPossible             the model cannot do this
├── ServerBusy              too many requests in flight: `retry_after` seconds
├── ServerUnavailable       nobody answers there, after retries
└── TimeUp                  the deadline passed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status


class RecommenderError(Exception):
    """The server refused a call, or the call did not reach it.

    Args:
        code: gRPC status name, e.g. "NOT_FOUND".
        message: The server's words.
        details: google.rpc messages by type name, e.g. "ErrorInfo".
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = dict(details or {})

    @property
    def reason(self) -> str:
        """The server's name for the error, e.g. "UNKNOWN_USER"; empty when it gave none."""
        info = self.details.get("ErrorInfo")
        return info.reason if info is not None else ""


class InvalidQuery(RecommenderError):
    """A field of the query is wrong."""

    @property
    def violations(self) -> dict[str, str]:
        """What is wrong, by field."""
        wrong = self.details.get("BadRequest")
        return {violation.field: violation.description for violation in wrong.field_violations} if wrong else {}


class NotFoundByServer(RecommenderError):
    """Unknown user, item, model, version or label."""

    @property
    def resource_type(self) -> str:
        """Kind of the thing that is unknown, e.g. "user"."""
        resource = self.details.get("ResourceInfo")
        return resource.resource_type if resource is not None else ""

    @property
    def resource_name(self) -> str:
        """Name of the thing that is unknown."""
        resource = self.details.get("ResourceInfo")
        return resource.resource_name if resource is not None else ""


class KeyRefused(RecommenderError):
    """No key was shown, or none that may call."""


class NotPossible(RecommenderError):
    """The model cannot do this."""


class ServerBusy(RecommenderError):
    """Too many requests are in flight."""

    @property
    def retry_after(self) -> float:
        """Seconds to wait before trying again."""
        return _retry_after(self)


class ServerUnavailable(RecommenderError):
    """Nobody answers there, after retries; or the server does, and what it asks does not."""

    @property
    def retry_after(self) -> float:
        """Seconds to wait before trying again."""
        return _retry_after(self)


class TimeUp(RecommenderError):
    """The deadline passed."""


def _retry_after(error: RecommenderError) -> float:
    info = error.details.get("RetryInfo")
    return info.retry_delay.ToMilliseconds() / 1000 if info is not None else 1.0


_ERRORS = {
    "INVALID_ARGUMENT": InvalidQuery,
    "NOT_FOUND": NotFoundByServer,
    "UNAUTHENTICATED": KeyRefused,
    "FAILED_PRECONDITION": NotPossible,
    "RESOURCE_EXHAUSTED": ServerBusy,
    "UNAVAILABLE": ServerUnavailable,
    "CANCELLED": ServerUnavailable,
    "DEADLINE_EXCEEDED": TimeUp,
}
_DETAILS: dict[str, type[Message]] = {
    name: getattr(error_details_pb2, name) for name in ("ErrorInfo", "BadRequest", "ResourceInfo", "RetryInfo")
}


def error_from_call(error: grpc.RpcError) -> RecommenderError:
    """Make the exception for a call that gRPC ended."""
    call: Any = error
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        # Details of a proxy on the way may not agree with its status: the status line still counts.
        status = None
    if status is not None:
        return error_from_status(status)
    code = call.code().name
    return _ERRORS.get(code, RecommenderError)(code, call.details() or "no details")


def error_from_status(status: status_pb2.Status) -> RecommenderError:
    """Make the exception for a google.rpc.Status."""
    code = code_pb2.Code.Name(status.code)
    details: dict[str, Any] = {}
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        if name in _DETAILS:
            detail = _DETAILS[name]()
            packed.Unpack(detail)
            details[name] = detail
    return _ERRORS.get(code, RecommenderError)(code, status.message, details)
