"""Asking Milvus: its own messages, by pymilvus, over a gRPC channel of ours.

pymilvus's client tries again and connects anew on its own account, for seconds beyond the time that it is given; a
server must keep its caller's deadline. So the two calls that it needs are made here, where gRPC keeps the time. One
channel serves all threads, and finds the way back to an engine that was away by itself.

Milvus Lite's C++ core (2.5) loses nprobe on lists over many items, and knows neither aliases nor names that change:
what is loaded for a server is therefore measured first, and nothing here needs those.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from export.bundle.engines.address import EngineAddress
from export.bundle.engines.card import Card
from export.bundle.engines.engine import Found, Vectors, padded
from export.bundle.errors import EngineError, ExportError

MOST = 16_384
"""Milvus's own bound on a search (quotaAndLimits.limits.topK)."""
FIELD = "embedding"
_MISSING, _NOT_LOADED, _BUSY = 100, 101, 8
_REASONS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.UNAVAILABLE: "unreachable",
    grpc.StatusCode.UNAUTHENTICATED: "refused",
    grpc.StatusCode.PERMISSION_DENIED: "refused",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "busy",
}
_CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Else a channel that was refused for a while looks again after minutes only.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Without them a connection whose other end vanished is asked until the system gives it up.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
]


class Milvus:
    """Asks a Milvus. Thread-safe.

    Args:
        address: Where it is.

    Raises:
        ExportError: A certificate or the file of the token cannot be read.
    """

    most = MOST

    def __init__(self, address: EngineAddress) -> None:
        self._place = address.place
        self._channel = _open_channel(address)
        self._stub: Any = milvus_pb2_grpc.MilvusServiceStub(self._channel)
        self._metadata: list[tuple[str, str]] = [("dbname", address.database)] if address.database else []
        if token := address.token:
            self._metadata.append(("authorization", base64.b64encode(token.encode()).decode()))

    def search(self, name: str, vectors: Vectors, k: int, card: Card, seconds: float) -> Found:
        """See `Engine.search`."""
        request = Prepare.search_requests_with_expr(
            name,
            FIELD,
            {"metric_type": "IP", "params": search_parameters(card, k)},
            k,
            data=vectors,
            use_default_consistency=False,
        )
        results = self._call(self._stub.Search, request, name, seconds).results
        scores, ids = np.array(results.scores, dtype=np.float32), np.array(results.ids.int_id.data, dtype=np.int64)
        if len(results.topks) != len(vectors) or not len(scores) == len(ids) == sum(results.topks):
            raise EngineError("failed", f"{self._place}: {name} answers with lists of another number or length")
        if any(count > k for count in results.topks):
            raise EngineError("failed", f"{self._place}: {name} answers with more than it was asked for")
        return padded(k, results.topks, scores, ids)

    def read_card(self, name: str, seconds: float) -> Card | None:
        """See `Engine.read_card`."""
        request = milvus_pb2.DescribeCollectionRequest(collection_name=card_name(name))
        try:
            answer = self._call(self._stub.DescribeCollection, request, name, seconds)
        except EngineError as error:
            if error.reason == "missing":
                return None
            raise
        return Card.from_json(answer.schema.description, f"{self._place}: {name}")

    def close(self) -> None:
        """End the channel."""
        self._channel.close()

    def _call(self, method: Any, request: Any, name: str, seconds: float) -> Any:
        try:
            answer = method(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            call: Any = error
            reason = _REASONS.get(call.code(), "failed")
            words = f"no answer within {seconds:.3g} s" if reason == "timeout" else f"{call.code().name}"
            raise EngineError(reason, f"{self._place}: {words}") from error
        status = answer.status
        if status.code or status.error_code:
            said = (str(status.reason).strip().splitlines() or ["no reason given"])[0][:200]
            reason = {_MISSING: "missing", _NOT_LOADED: "missing", _BUSY: "busy"}.get(status.code, "failed")
            raise EngineError(reason, f"{self._place}: {name}: {said}")
        return answer


def search_parameters(card: Card, k: int) -> dict[str, int]:
    """What Milvus takes beside the vectors; a graph looks at no fewer than it is to find."""
    found = {name: value for name, value in card.search.items() if name in ("nprobe", "ef")}
    if "ef" in found:
        found["ef"] = max(found["ef"], k)
    return found


def card_name(name: str) -> str:
    """The collection whose description is a collection's card: without it, it is not whole."""
    return f"{name}_card"


def _open_channel(address: EngineAddress) -> grpc.Channel:
    options = address.options
    if options.get("secure", "false").lower() not in ("true", "1"):
        return grpc.insecure_channel(address.host, options=_CHANNEL)

    def read(*names: str) -> bytes | None:
        path = next((options[name] for name in names if name in options), None)
        try:
            return None if path is None else Path(path).read_bytes()
        except OSError as error:
            raise ExportError(f"{address.place}: {names[0]} {path}: cannot be read ({error.strerror})") from error

    credentials = grpc.ssl_channel_credentials(
        read("server_pem_path", "ca_pem_path"), read("client_key_path"), read("client_pem_path")
    )
    named = [("grpc.ssl_target_name_override", options["server_name"])] if "server_name" in options else []
    return grpc.secure_channel(address.host, credentials, options=[*_CHANNEL, *named])
