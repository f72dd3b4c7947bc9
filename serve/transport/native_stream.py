"""An answer in parts over the native front: no further ahead than the caller reads."""

from __future__ import annotations

from time import sleep
from typing import Any

from google.protobuf.message import Message
from pygrpc_native import STREAM_FULL, STREAM_SENT

from serve.answers.call import Call
from serve.answers.errors import DeadlineExpired
from serve.rpc.services import Parts
from serve.telemetry.access_log import HEADER

SLOW_READER = 0.005
"""Between looks at whether a caller has read enough to be sent more, in seconds."""


def send_parts(front: Any, call_id: int, parts: Parts[Message], call: Call) -> None:
    """Send parts until there are no more, the caller has left, or time is up.

    Args:
        front: Where they go.
        call_id: The call's, at the front.
        parts: Guarded.
        call: The call.

    Raises:
        Refusal: The parts end with one, or the caller did not read in time.
    """
    for part in parts:
        payload = part.SerializeToString()
        while (state := front.stream_try_send(call_id, payload)) == STREAM_FULL:
            if call.deadline.expired:
                parts.throw(DeadlineExpired("the caller did not read in time"))
            sleep(SLOW_READER)
        if state != STREAM_SENT:
            parts.close()
            return
    front.stream_end(call_id, ((HEADER, call.request_id),))
