"""The Python SDK: typed calls with deadlines, retries and errors that say what to do.

    with RecommenderClient("127.0.0.1:50051") as client:
        for item in client.recommend("user-7", k=5, include_titles=True):
            print(item.title, item.score)

A client holds one connection, may be shared by threads, and is meant to live long. Errors:

    RecommenderError            whatever else the server said; `code` is the gRPC status name
    ├── InvalidQuery            a field is wrong: `violations`
    ├── NotFoundByServer        unknown user, item, model, version or label: `resource_type`, `resource_name`
    ├── NotPossible             the model cannot do this
    ├── ServerBusy              too many requests in flight: `retry_after` seconds
    ├── ServerUnavailable       nobody answers there, after retries
    └── TimeUp                  the deadline passed
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message
from google.rpc import error_details_pb2

MAX_ANSWER_BYTES = 64 << 20
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "lowpass.v1.RecommenderService"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 3,
                    # All methods read only, so trying again is safe; a busy server is not asked again.
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # Stops retrying when most calls fail, so that clients do not keep a struggling server down.
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
    }
)
CHANNEL_OPTIONS = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # Not shorter than the server's grpc.http2.min_recv_ping_interval_without_data_ms, or it hangs up.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class RecommenderError(Exception):
    """The server, or the way to it, said no.

    Args:
        code: gRPC status name, e.g. "NOT_FOUND".
        message: In words.
        details: google.rpc messages by type name, e.g. "ErrorInfo".
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = dict(details or {})

    @property
    def reason(self) -> str:
        """The server's name for the error, e.g. "UNKNOWN_USER"; empty when it gave none."""
        info = self.details.get("ErrorInfo")
        return info.reason if info is not None else ""


class InvalidQuery(RecommenderError):
    """A field of the query is wrong."""

    @property
    def violations(self) -> dict[str, str]:
        """Field → what is wrong with it."""
        wrong = self.details.get("BadRequest")
        return {violation.field: violation.description for violation in wrong.field_violations} if wrong else {}


class NotFoundByServer(RecommenderError):
    """Unknown user, item, model, version or label."""

    @property
    def resource_type(self) -> str:
        """What kind of thing is unknown, e.g. "user"."""
        resource = self.details.get("ResourceInfo")
        return resource.resource_type if resource is not None else ""

    @property
    def resource_name(self) -> str:
        """Which one."""
        resource = self.details.get("ResourceInfo")
        return resource.resource_name if resource is not None else ""


class NotPossible(RecommenderError):
    """The model cannot do this."""


class ServerBusy(RecommenderError):
    """Too many requests are in flight."""

    @property
    def retry_after(self) -> float:
        """When to try again, in seconds."""
        info = self.details.get("RetryInfo")
        return info.retry_delay.ToMilliseconds() / 1000 if info is not None else 1.0


class ServerUnavailable(RecommenderError):
    """Nobody answers there, after retries."""


class TimeUp(RecommenderError):
    """The deadline passed."""


_ERRORS = {
    "INVALID_ARGUMENT": InvalidQuery,
    "NOT_FOUND": NotFoundByServer,
    "FAILED_PRECONDITION": NotPossible,
    "RESOURCE_EXHAUSTED": ServerBusy,
    "UNAVAILABLE": ServerUnavailable,
    "DEADLINE_EXCEEDED": TimeUp,
}
_DETAILS: dict[str, type[Message]] = {
    name: getattr(error_details_pb2, name) for name in ("ErrorInfo", "BadRequest", "ResourceInfo", "RetryInfo")
}


@dataclass(frozen=True, slots=True)
class Item:
    """One recommended item.

    Args:
        item_id: Its id.
        score: Its score.
        title: Its title; empty when not asked for or not there.
    """

    item_id: str
    score: float
    title: str = ""


@dataclass(frozen=True, slots=True)
class RecommendationList:
    """An answer; iterate over it for its items.

    Args:
        item_ids: Best first.
        scores: scores[i] belongs to item_ids[i].
        titles: titles[i] belongs to item_ids[i]; empty when not asked for or not there.
        model: Name of the model that answered.
        version: Version of the model that answered.
        source: "personal", "fold_in", "popular" or "similar".
        shortfall: Empty, or why there are fewer than k: "exhausted" or "below_min_score".
        unknown_item_ids: Ids of the history or the allow list that the model does not know.
        timings_us: Stage → microseconds on the server.
    """

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    titles: tuple[str, ...]
    model: str
    version: str
    source: str
    shortfall: str
    unknown_item_ids: tuple[str, ...]
    timings_us: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.item_ids)

    def __iter__(self) -> Iterator[Item]:
        for place, item_id in enumerate(self.item_ids):
            yield Item(item_id, self.scores[place], self.titles[place] if self.titles else "")
