"""The connection that both clients are: it sends deadline and key with each call, and raises errors in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
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
        try:
            try:
                return method(request, timeout=self.timeout, metadata=(*self._metadata, *metadata))
            except grpc.RpcError as error:
                if not (self.reads_only and broke_off(error)):
                    raise
                return method(request, timeout=self.timeout, metadata=(*self._metadata, *metadata))
        except grpc.RpcError as error:
            raise self._in_words(error, self.timeout) from error

    def _call_all(self, method: Any, questions: Sequence[tuple[Any, Metadata]]) -> list[Any]:
        """Send several requests at once; return for each its answer, or its error."""
        calls = [self._send(method, *question) for question in questions]
        try:
            return [self._outcome(call, method, question) for call, question in zip(calls, questions, strict=True)]
        finally:
            for call in calls:
                call.cancel()

    def _send(self, method: Any, request: Any, metadata: Metadata) -> Any:
        return method.future(request, timeout=self.timeout, metadata=(*self._metadata, *metadata))

    def _outcome(self, call: Any, method: Any, question: tuple[Any, Metadata]) -> Any:
        try:
            try:
                return call.result()
            except grpc.RpcError as error:
                if not (self.reads_only and broke_off(error)):
                    raise
                return self._send(method, *question).result()
        except grpc.RpcError as error:
            return self._in_words(error, self.timeout)

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
