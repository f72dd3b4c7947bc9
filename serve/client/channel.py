"""The connection that both clients are: it sends deadline and key with each call, and raises errors in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from serve.client.errors import RecommenderError, TimeUp, error_from_call

Metadata = Sequence[tuple[str, str]]


def broke_off(error: Any) -> bool:
    """Whether a connection ended within an answer: gRPC tries nothing again once an answer has begun."""
    return error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in (error.details() or "")


class GrpcClient:
    """A connection to a server; a context manager.

    Args:
        target: `host:port`, or any gRPC target.
        timeout: Deadline of each call in seconds, retries included.
        credentials: For TLS; None for plain text.
        api_key: Sent with each call; empty for none.
        options: gRPC channel options.

    Attributes:
        reads_only: Whether asking twice changes nothing, so that what broke off is asked once more.
    """

    reads_only = False

    def __init__(
        self,
        target: str,
        timeout: float,
        credentials: grpc.ChannelCredentials | None,
        api_key: str,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.timeout = timeout
        self._target = target
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _call(self, method: Any, request: Any, metadata: Metadata = ()) -> Any:
        ask = partial(method, request, metadata=(*self._metadata, *metadata))
        return self._take(partial(ask, timeout=self.timeout), ask, time.monotonic() + self.timeout)

    def _call_all(self, method: Any, questions: Sequence[tuple[Any, Metadata]]) -> list[Any]:
        """Send several requests at once; return for each its answer, or its error."""
        ends, calls = time.monotonic() + self.timeout, []
        for request, metadata in questions:
            sent = {"request": request, "metadata": (*self._metadata, *metadata)}
            calls.append((method.future(**sent, timeout=self.timeout), partial(method, **sent)))
        try:
            return [self._outcome(call, ask, ends) for call, ask in calls]
        finally:
            for call, _ in calls:
                call.cancel()

    def _outcome(self, call: Any, ask: Callable[..., Any], ends: float) -> Any:
        try:
            return self._take(call.result, ask, ends)
        except RecommenderError as error:
            return error

    def _take(self, first: Callable[[], Any], ask: Callable[..., Any], ends: float) -> Any:
        """Take an answer; one that broke off is asked for once more, in the time that is left.

        Args:
            first: Waits for the answer.
            ask: Asks again, within its `timeout`.
            ends: When there is no more time, on the monotonic clock.
        """
        try:
            try:
                return first()
            except grpc.RpcError as error:
                if not (self.reads_only and broke_off(error)):
                    raise
                return ask(timeout=ends - time.monotonic())
        except grpc.RpcError as error:
            raise self._in_words(error, self.timeout) from error

    def _stream(
        self, method: Any, pack: Callable[[int], Any], metadata: Metadata, timeout: float
    ) -> Generator[Any, None, None]:
        """Yield the entries of a call that answers in parts; one that breaks off goes on where it was.

        Args:
            method: Of the stub.
            pack: Makes the request without the first n questions, which are answered.
            metadata: Of the call.
            timeout: Of the whole, seconds.
        """
        ends, answered = time.monotonic() + timeout, 0
        while True:
            before = answered
            call = method(pack(answered), timeout=ends - time.monotonic(), metadata=(*self._metadata, *metadata))
            if not answered:
                yield None  # the call is on its way
            try:
                for part in call:
                    for entry in part.entries:
                        answered += 1
                        yield entry
                return
            except grpc.RpcError as error:
                is_gone = broke_off(error) or call.code() is grpc.StatusCode.UNAVAILABLE
                if answered == before or not (self.reads_only and is_gone):
                    raise self._in_words(error, timeout) from error
            finally:
                call.cancel()

    def _in_words(self, error: grpc.RpcError, timeout: float) -> RecommenderError:
        found = error_from_call(error)
        if not isinstance(found, TimeUp) or found.details:
            return found
        # gRPC gave up on this side, and says no more than that.
        remedy = "allow more time (timeout, --timeout), or ask for less at once"
        return TimeUp(found.code, f"no answer from {self._target} within {timeout:g} s: {remedy}")
