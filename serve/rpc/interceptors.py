"""What surrounds every method, whatever the transport: refusals, deadlines, telemetry, and no leaking of defects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message
from google.rpc import code_pb2

from serve.answers.call import Call
from serve.answers.errors import DeadlineExpired, RequestError
from serve.rpc.services import AnyMethod, Method, Parts, StreamMethod, full_name
from serve.rpc.status import CODE_NAMES, INTERNAL, REJECTIONS, Refusal, to_refusal
from serve.telemetry.logs import trace_of
from serve.telemetry.metrics import Metrics
from serve.telemetry.telemetry import Telemetry

LOG = logging.getLogger("lowpass.serve")

Guarded = Callable[[Any, Call], Message]
"""Answers, or raises `Refusal` and nothing else."""

GuardedMany = Callable[[Sequence[Any], Sequence[Call]], list[Message | Refusal]]
"""The same for several calls at once, a refusal in the place of an answer; raises nothing."""

GuardedStream = Callable[[Any, Call], Parts[Message]]
"""Yields parts of an answer; raises `Refusal` and nothing else, while it is iterated over."""


def guard(method: Method, telemetry: Telemetry) -> Guarded:
    """Wrap a method.

    Args:
        method: Raises `RequestError` for what it refuses, `Refusal` for what another server refused, anything else for
            a defect.
        telemetry: Takes note of the call, whatever its end.

    Returns:
        The same, raising only `Refusal`.
    """
    record = _recorder(method, telemetry)

    def call_method(request: Any, call: Call) -> Message:
        with _Ending(method.name, telemetry.metrics, record, call) as ending:
            call.deadline.check()
            response = method.handle(request, call)
            if call.deadline.expired:
                raise DeadlineExpired("the answer came after the deadline")
            if call.is_active():
                ending.code = "OK"
            return response

    return call_method


def guard_stream(method: StreamMethod, telemetry: Telemetry) -> GuardedStream:
    """Wrap a method that answers in parts; see `guard`. The call counts when it ends, or is given up."""
    record = _recorder(method, telemetry)

    def stream(request: Any, call: Call) -> Parts[Message]:
        with _Ending(method.name, telemetry.metrics, record, call) as ending:
            call.deadline.check()
            yield from method.stream(request, call)
            if call.is_active():
                ending.code = "OK"

    return stream


class _Ending:
    """Counts a call when it ends, and lets nothing out but a `Refusal`; `code` is what it ended with."""

    def __init__(self, method: str, metrics: Metrics, record: Callable[[Call, str], None], call: Call) -> None:
        self.code = "CANCELLED"
        self._method, self._metrics, self._record, self._call = method, metrics, record, call

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        call = self._call
        try:
            if isinstance(error, Exception):
                self.code, refusal = _refuse(error, self._method, self._metrics, call)
                raise refusal from error
        finally:
            self._record(call, self.code)


def guard_many(method: Method, telemetry: Telemetry) -> GuardedMany:
    """Wrap a method for several calls at once; see `guard`. Returns answers and refusals, one a call."""
    handle_many, guarded = method.handle_many, guard(method, telemetry)

    def one_by_one(requests: Sequence[Any], calls: Sequence[Call]) -> list[Message | Refusal]:
        return [_attempt(guarded, *pair) for pair in zip(requests, calls, strict=True)]

    if handle_many is None:
        return one_by_one

    record, metrics = _recorder(method, telemetry), telemetry.metrics

    def call_many(requests: Sequence[Any], calls: Sequence[Call]) -> list[Message | Refusal]:
        late = DeadlineExpired("no time is left: the request waited past its deadline")
        outcomes: list[Message | Exception] = [late] * len(calls)
        waiting = [place for place, call in enumerate(calls) if not call.deadline.expired]
        try:
            answers = handle_many([requests[place] for place in waiting], [calls[place] for place in waiting])
            for place, answer in zip(waiting, answers, strict=True):
                outcomes[place] = answer
        except Exception:
            which = {"method": method.name, "request_ids": [call.request_id for call in calls]}
            LOG.exception("defect in a method: its calls are answered one by one", extra={"fields": which})
            return one_by_one(requests, calls)
        return [_finish(method.name, metrics, record, *pair) for pair in zip(outcomes, calls, strict=True)]

    return call_many


def _recorder(method: AnyMethod, telemetry: Telemetry) -> Callable[[Call, str], None]:
    return telemetry.recorder(method.name, full_name(method))


def _refuse(error: Exception, method: str, metrics: Metrics, call: Call) -> tuple[str, Refusal]:
    """The code by name, and the refusal, of a call that failed; a defect is logged."""
    if isinstance(error, RequestError):
        return count_refusal(error, metrics), to_refusal(error)
    if isinstance(error, Refusal):
        return code_pb2.Code.Name(error.status.code), Refusal(error.status, error.trailers)
    which = {"method": method, "model": call.model, "request_id": call.request_id, **trace_of(call)}
    LOG.error("defect in a method", exc_info=error, extra={"fields": which})
    return "INTERNAL", Refusal(INTERNAL)


def _finish(
    method: str, metrics: Metrics, record: Callable[[Call, str], None], outcome: Message | Exception, call: Call
) -> Message | Refusal:
    if isinstance(outcome, Message) and call.deadline.expired:
        outcome = DeadlineExpired("the answer came after the deadline")
    found: Message | Refusal
    if isinstance(outcome, Exception):
        code, found = _refuse(outcome, method, metrics, call)
    else:
        code, found = "OK" if call.is_active() else "CANCELLED", outcome
    record(call, code)
    return found


def _attempt(guarded: Guarded, request: Any, call: Call) -> Message | Refusal:
    try:
        return guarded(request, call)
    except Refusal as refusal:
        return refusal


def refuse(method: str, error: RequestError, metrics: Metrics, arrival_ns: int) -> Refusal:
    """End a call that was never worked on: count it.

    Args:
        error: Why it is not.
        metrics: Where it is counted.
        arrival_ns: When it arrived, by `perf_counter_ns`.

    Returns:
        What to answer.
    """
    code = count_refusal(error, metrics)
    metrics.request(method, "", "", code, (perf_counter_ns() - arrival_ns) * 1e-9)
    return to_refusal(error)


def count_refusal(error: RequestError, metrics: Metrics) -> str:
    """Count an error for which a request is not worked on; returns the error's code by name."""
    reason = REJECTIONS.get(type(error))
    if reason is not None:
        metrics.rejected(reason)
    return CODE_NAMES[type(error)]
