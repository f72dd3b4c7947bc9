"""The connection that both clients are: it sends deadline and key with each call, and raises errors in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from serve.client.errors import RecommenderError, TimeUp, error_from_call


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

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._in_words(error, self.timeout) from error

    def _stream(self, method: Any, request: Any, timeout: float) -> Iterator[Any]:
        parts = method(request, timeout=timeout, metadata=self._metadata)
        try:
            yield from parts
        except grpc.RpcError as error:
            raise self._in_words(error, timeout) from error
        finally:
            parts.cancel()

    def _in_words(self, error: grpc.RpcError, timeout: float) -> RecommenderError:
        found = error_from_call(error)
        if not isinstance(found, TimeUp) or found.details:
            return found
        # gRPC gave up on this side, and says no more than that.
        remedy = "allow more time (timeout, --timeout), or ask for less at once"
        return TimeUp(found.code, f"no answer from {self._target} within {timeout:g} s: {remedy}")
