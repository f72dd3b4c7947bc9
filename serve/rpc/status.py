"""Domain errors to gRPC status: one table of codes, one function for its details, the refusal with both.

What is in the details: ErrorInfo always, for a wrong shard with the right one; BadRequest for wrong fields;
ResourceInfo for what is not there; RetryInfo when trying again makes sense.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from serve.answers import errors

DOMAIN = "lowpass"
MESSAGE_BYTES, NAME_BYTES, VIOLATIONS_BYTES = 1024, 512, 1024
"""Most of an error's words, of a name in its details, and of all its violations together: in the trailers, where words
beyond ASCII are three times as long, a client takes 8 KiB, and more would hide the error behind RESOURCE_EXHAUSTED."""
INTERNAL = status_pb2.Status(code=code_pb2.INTERNAL, message="internal error")
"""All that a caller learns of a defect; the log has the rest."""

CODES: dict[type[errors.RequestError], int] = {
    errors.InvalidRequest: code_pb2.INVALID_ARGUMENT,
    errors.UnknownUser: code_pb2.NOT_FOUND,
    errors.WrongShard: code_pb2.NOT_FOUND,
    errors.UnknownItem: code_pb2.NOT_FOUND,
    errors.UnknownHistory: code_pb2.NOT_FOUND,
    errors.ModelNotServed: code_pb2.NOT_FOUND,
    errors.VersionNotServed: code_pb2.NOT_FOUND,
    errors.LabelNotServed: code_pb2.NOT_FOUND,
    errors.NotInRepository: code_pb2.NOT_FOUND,
    errors.FoldInUnavailable: code_pb2.FAILED_PRECONDITION,
    errors.ModelUnusable: code_pb2.FAILED_PRECONDITION,
    errors.ModelInUse: code_pb2.FAILED_PRECONDITION,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    errors.IndexUnavailable: code_pb2.UNAVAILABLE,
    errors.DeadlineExpired: code_pb2.DEADLINE_EXCEEDED,
    errors.CallerLeft: code_pb2.CANCELLED,
    errors.NotReady: code_pb2.UNAVAILABLE,
    errors.ShuttingDown: code_pb2.UNAVAILABLE,
}

CODE_NAMES: dict[type[errors.RequestError], str] = {kind: code_pb2.Code.Name(code) for kind, code in CODES.items()}

REJECTIONS: dict[type[errors.RequestError], str] = {
    errors.Unauthenticated: "unauthenticated",
    errors.Overloaded: "overloaded",
    errors.DeadlineExpired: "deadline",
    errors.NotReady: "not_ready",
    errors.ShuttingDown: "shutting_down",
}
"""Errors for which a request is not worked on at all, and their metric label."""


class Refusal(Exception):
    """A call that ends without an answer; not an error of the domain, only its translation.

    Args:
        status: Code, message and details.
        trailers: Trailing metadata beside `grpc-status-details-bin`.
    """

    def __init__(self, status: status_pb2.Status, trailers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status.message)
        self.status = status
        self.trailers = trailers

    @cached_property
    def details(self) -> tuple[str, bytes]:
        """The trailer that carries the whole status, as grpcio-status writes it."""
        return "grpc-status-details-bin", self.status.SerializeToString()


def to_status(error: errors.RequestError) -> status_pb2.Status:
    """The status of an error, with its details.

    Args:
        error: A leaf of the tree.

    Returns:
        Code, the error's own words, and details.
    """
    metadata = {}
    if isinstance(error, errors.WrongShard):
        metadata = {"model": error.model, "shard": str(error.shard), "shards": str(error.shards)}
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=reason_of(type(error)), domain=DOMAIN, metadata=metadata)
    ]
    if isinstance(error, errors.InvalidRequest):
        room = VIOLATIONS_BYTES // max(1, len(error.violations))
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=wrong.field, description=_cut(wrong.description, room))
            for wrong in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    elif isinstance(error, errors.NotFound):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.kind, resource_name=_cut(error.name, NAME_BYTES), description=error.remedy
            )
        )
    elif isinstance(error, errors.Overloaded | errors.IndexUnavailable):
        delay = Duration()
        delay.FromMilliseconds(retry_milliseconds(error))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    message = _cut(str(error), MESSAGE_BYTES)
    return status_pb2.Status(code=CODES[type(error)], message=message, details=map(_pack, details))


def to_refusal(error: errors.RequestError) -> Refusal:
    """The end of a call that failed for `error`; tells gRPC's own retry logic when to come back, too."""
    if isinstance(error, errors.Overloaded):
        return _overloaded(retry_milliseconds(error))
    if isinstance(error, errors.IndexUnavailable):
        return Refusal(to_status(error), _pushback(retry_milliseconds(error)))
    return Refusal(to_status(error))


@lru_cache(maxsize=10_000)
def _overloaded(milliseconds: int) -> Refusal:
    # Kept: in a flood thousands a second are told the same.
    return Refusal(to_status(errors.Overloaded(milliseconds / 1000)), _pushback(milliseconds))


def _pushback(milliseconds: int) -> tuple[tuple[str, str], ...]:
    return (("grpc-retry-pushback-ms", str(milliseconds)),)


def retry_milliseconds(error: errors.Overloaded | errors.IndexUnavailable) -> int:
    """When to come back, in whole milliseconds."""
    return max(1, round(error.retry_after * 1000))


def reason_of(kind: type[errors.RequestError]) -> str:
    """An error's name as ErrorInfo wants it, e.g. "UNKNOWN_USER"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()


def _cut(text: str, most: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= most else encoded[: most - 3].decode(errors="ignore") + "…"


def _pack(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
