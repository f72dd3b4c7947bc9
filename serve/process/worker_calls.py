"""How a supervisor asks its workers: each on Unix sockets of its own, in plain text, without keys.

A worker has two. On the first it is changed, and counts and logs that as a server does on its admin address; on the
other it is looked at (`looking_at`), which is no traffic and is counted nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from serve.client.admin import AdminClient
from serve.client.errors import RecommenderError, ServerUnavailable, TimeUp
from serve.rpc.services import SERVICE, Method
from serve.rpc.status import Refusal
from serve.transport.address import UNIX

LEAVING = ("", "NOT_READY", "SHUTTING_DOWN")
"""Reasons of UNAVAILABLE by which a worker says nothing of the change: it is gone, or about to be."""


class WorkerClient(AdminClient):
    """A connection to one of the two sockets of a worker; a context manager."""

    def ask(self, method: Method, request: Message) -> Message:
        """Send a request of the recommender service as it came, and return the answer as it comes."""
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method.name}", method.request.SerializeToString, method.response.FromString
        )
        answer: Message = self._call(call, request)
        return answer


Ask = Callable[[WorkerClient], Any]


def looking_at(socket: str) -> str:
    """Where a worker is looked at that is changed at `socket`."""
    return f"{socket}-look"


def remove_sockets(socket: str) -> None:
    """Remove both sockets of a worker that is gone."""
    for each in (socket, looking_at(socket)):
        Path(each.removeprefix(UNIX)).unlink(missing_ok=True)


def attempt(socket: str, ask: Ask, within: float) -> Any:
    """An answer, or the error in its place.

    Args:
        socket: Empty for a worker that is gone.
        within: Seconds.
    """
    try:
        if not socket:
            raise ServerUnavailable("UNAVAILABLE", "the worker is gone")
        # A connection a call: one that is kept would go on trying a worker that has died.
        with WorkerClient(socket, max(0.001, within)) as worker:
            return ask(worker)
    except RecommenderError as error:
        return error


def attempt_all(sockets: Mapping[int, str], ask: Ask, within: float) -> dict[int, Any]:
    """Ask several at once; see `attempt`."""
    with ThreadPoolExecutor(max(1, len(sockets)), thread_name_prefix="lowpass-admin") as pool:
        return dict(zip(sockets, pool.map(lambda socket: attempt(socket, ask, within), sockets.values()), strict=True))


def is_gone(error: RecommenderError) -> bool:
    """Whether a worker said nothing, since it is gone or about to be."""
    return isinstance(error, ServerUnavailable) and error.reason in LEAVING


def is_silent(error: RecommenderError) -> bool:
    """Whether a worker said nothing, gone or hung."""
    return is_gone(error) or isinstance(error, TimeUp)


def refusal(error: RecommenderError, words: str = "") -> Refusal:
    """The status that a worker sent, to be sent on.

    Args:
        words: Said before its own.
    """
    status = None
    cause = error.__cause__
    if isinstance(cause, grpc.RpcError):
        call: Any = cause
        with suppress(ValueError):
            status = rpc_status.from_call(call)
    if status is None:
        status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)
    status.message = f"{words}: {status.message}" if words else status.message
    return Refusal(status)
