"""What surrounds every method, whatever the transport: refusals, deadlines, metrics, and no leaking of defects."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.rpc import code_pb2

from serve.errors import DeadlineExpired, RequestError
from serve.metrics import Metrics
from serve.rpc.call import Call, Refusal
from serve.rpc.services import Method
from serve.rpc.status import CODES, INTERNAL, REJECTIONS, to_refusal

LOG = logging.getLogger("lowpass.serve")

Guarded = Callable[[Any, Call], Message]
"""Answers, or raises `Refusal` and nothing else."""


def guard(method: Method, metrics: Metrics) -> Guarded:
    """Wrap a method.

    Args:
        method: Raises `RequestError` for what it refuses, anything else for a defect.
        metrics: Where the call is counted, whatever its end.

    Returns:
        The same, raising only `Refusal`.
    """

    def call_method(request: Any, call: Call) -> Message:
        code = "OK"
        try:
            call.deadline.check()
            response = method.handle(request, call)
            if call.deadline.expired:
                raise DeadlineExpired("the answer came after the deadline")
            if not call.is_active():
                code = "CANCELLED"
            return response
        except RequestError as error:
            code = count_refusal(error, metrics)
            raise to_refusal(error) from error
        except Exception as error:
            code = "INTERNAL"
            LOG.exception("defect in a method", extra={"fields": {"method": method.name, "model": call.model}})
            raise Refusal(INTERNAL) from error
        finally:
            metrics.request(method.name, call.model, call.version, code, call.age_ns * 1e-9)

    return call_method


def count_refusal(error: RequestError, metrics: Metrics) -> str:
    """Count an error for which a request is not worked on; returns the error's code by name."""
    reason = REJECTIONS.get(type(error))
    if reason is not None:
        metrics.rejected(reason)
    return str(code_pb2.Code.Name(CODES[type(error)]))
