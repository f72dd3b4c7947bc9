"""The connection that both clients are: it sends deadline and key with each call, and raises errors in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from serve.client.errors import RecommenderError, TimeUp, error_from_call

Metadata = Sequence[tuple[str, str]]


class GrpcClient:
    """A connection to a server; a context manager.

    Args:
        target: `host:port`, or any gRPC target.
        timeout: Deadline of each call in seconds, retries included.
        credentials: For TLS; None for plain text.
        api_key: Sent with each call; empty for none.
        options: gRPC channel options.
    """

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
            return method(request, timeout=self.timeout, metadata=(*self._metadata, *metadata))
        except grpc.RpcError as error:
            raise self._in_words(error, self.timeout) from error

    def _call_all(self, method: Any, questions: Sequence[tuple[Any, Metadata]]) -> list[Any]:
        """Send several requests at once; return for each its answer, or its error."""
        calls = [
            method.future(request, timeout=self.timeout, metadata=(*self._metadata, *metadata))
            for request, metadata in questions
        ]
        try:
            return [self._outcome(call) for call in calls]
        finally:
            for call in calls:
                call.cancel()

    def _outcome(self, call: Any) -> Any:
        try:
            return call.result()
        except grpc.RpcError as error:
            return self._in_words(error, self.timeout)

    def _begin(self, method: Any, request: Any, timeout: float, metadata: Metadata) -> Any:
        """Start a call that answers in parts; whoever starts it cancels it in the end."""
        return method(request, timeout=timeout, metadata=(*self._metadata, *metadata))

    def _parts(self, call: Any, timeout: float) -> Iterator[Any]:
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._in_words(error, timeout) from error

    def _in_words(self, error: grpc.RpcError, timeout: float) -> RecommenderError:
        found = error_from_call(error)
        if not isinstance(found, TimeUp) or found.details:
            return found
        # gRPC gave up on this side, and says no more than that.
        remedy = "allow more time (timeout, --timeout), or ask for less at once"
        return TimeUp(found.code, f"no answer from {self._target} within {timeout:g} s: {remedy}")
