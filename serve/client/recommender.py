"""The Python SDK: typed calls with deadlines, retries and errors that say what to do.

    with RecommenderClient("127.0.0.1:50051") as client:
        for item in client.recommend("user-7", k=5, include_titles=True):
            print(item.title, item.score)

A client holds one connection, may be shared by threads, and is meant to live long. What can go
wrong is in `serve.client.errors`.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypedDict, Unpack

import grpc

from serve.answers.limits import MAX_ANSWER_BYTES
from serve.client.answers import RecommendationList, ServerInfo, to_list, to_model_info
from serve.client.channel import GrpcClient
from serve.client.errors import RecommenderError, ServerUnavailable, error_from_status
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.pb.lowpass.v1 import recommender_pb2_grpc

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
                    # A stopping grpcio server may cancel what it has not begun: to a caller, unavailable.
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ],
        # Stops retrying when most calls fail, so that clients do not keep a struggling server down; as high as gRPC
        # allows, because a worker that dies fails at once all that one connection has in flight.
        "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.5},
    }
)
CHANNEL_OPTIONS = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # Not shorter than the server's grpc.http2.min_recv_ping_interval_without_data_ms, or it hangs up.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Not longer than the retries above last: who reconnects to a worker that is just dying tries again in time.
    ("grpc.initial_reconnect_backoff_ms", 100),
)


class QueryOptions(TypedDict, total=False):
    """What `recommend` takes beside the subject, as keywords; see the proto's `RecommendRequest`.

    Args:
        k: How many items; 0 for the server's default.
        model: Name, `NAME:LABEL` or `NAME:VERSION`; empty for the server's default.
        include_seen: Also recommend what the subject already has.
        exclude: Item ids never to answer with.
        allow: Answer only with these item ids; empty for all.
        allow_categories: Answer only with items of one of these; empty for all.
        min_score: Leave out what scores less.
        offset: How many of the best to skip.
        exact: Score every item.
        allow_fallback: Answer the unknown with what is popular.
        include_titles: Also send titles.
        recent: Item ids that the user has taken since training.
        diversity: Less of the same, between 0 and 1.
        popularity_discount: Less of what is popular anyway, from 0.
    """

    k: int
    model: str
    include_seen: bool
    exclude: Sequence[str]
    allow: Sequence[str]
    allow_categories: Sequence[str]
    min_score: float | None
    offset: int
    exact: bool
    allow_fallback: bool
    include_titles: bool
    recent: Sequence[str]
    diversity: float
    popularity_discount: float


class RecommenderClient(GrpcClient):
    """A connection to a server.

    Args:
        target: `host:port`, or any gRPC target.
        timeout: Deadline of each call in seconds, retries included.
        credentials: For TLS; None for plain text.
        api_key: Shown with each call; empty for none.
        options: More channel options; they win over the defaults.
    """

    def __init__(
        self,
        target: str,
        timeout: float = 2.0,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str = "",
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        merged = list({**dict(CHANNEL_OPTIONS), **dict(options)}.items())
        super().__init__(target, timeout, credentials, api_key, merged)
        make_stub: Any = recommender_pb2_grpc.RecommenderServiceStub
        self._stub = make_stub(self._channel)

    def wait_ready(self, timeout: float) -> None:
        """Wait until the server can be reached.

        Raises:
            ServerUnavailable: It could not in time.
        """
        try:
            grpc.channel_ready_future(self._channel).result(timeout)
        except grpc.FutureTimeoutError as error:
            raise ServerUnavailable("UNAVAILABLE", f"no connection within {timeout:g} s") from error

    def recommend(
        self, user_id: str | None = None, *, history: Sequence[str] | None = None, **options: Unpack[QueryOptions]
    ) -> RecommendationList:
        """The best items for a user, or for someone with a history.

        Args:
            user_id: A user of the training data; or
            history: Item ids of anyone.
            options: The fields of `QueryOptions`.

        Raises:
            RecommenderError: See `serve.client.errors`.
        """
        request = _request(user_id, history, **options)
        return to_list(self._call(self._stub.Recommend, request))

    def batch_recommend(
        self, subjects: Sequence[str | Sequence[str]], **options: Unpack[QueryOptions]
    ) -> list[RecommendationList | RecommenderError]:
        """Answer many subjects in one call; one that fails does not fail the others.

        Args:
            subjects: User ids (strings) and histories (sequences of item ids).
            options: The fields of `QueryOptions`, the same for all.

        Returns:
            A list or the error, for each.

        Raises:
            RecommenderError: The call as a whole failed.
        """
        request = pb.BatchRecommendRequest(requests=_requests(subjects, options))
        return [_outcome(entry) for entry in self._call(self._stub.BatchRecommend, request).entries]

    def stream_recommend(
        self, subjects: Iterable[str | Sequence[str]], *, timeout: float = 300.0, **options: Unpack[QueryOptions]
    ) -> Generator[RecommendationList | RecommenderError, None, None]:
        """Answer very many subjects in one call, the first ones early; one that fails does not fail the others.

        Args:
            subjects: As in `batch_recommend`; `Limits.max_stream` at most.
            timeout: Deadline of the whole stream in seconds, what the caller does between two answers included.
            options: The fields of `QueryOptions`, the same for all.

        Yields:
            A list or the error, for each, in order. Whoever stops early should close the iterator.

        Raises:
            RecommenderError: The call as a whole failed, or broke off.
        """
        request = pb.StreamRecommendRequest(requests=_requests(subjects, options))
        for part in self._stream(self._stub.StreamRecommend, request, timeout):
            yield from map(_outcome, part.entries)

    def similar_items(
        self,
        item_id: str,
        *,
        k: int = 0,
        model: str = "",
        exclude: Sequence[str] = (),
        allow: Sequence[str] = (),
        allow_categories: Sequence[str] = (),
        min_score: float | None = None,
        offset: int = 0,
        include_titles: bool = False,
    ) -> RecommendationList:
        """The items nearest to one, by cosine; the arguments are those of `QueryOptions`.

        Raises:
            RecommenderError: See `serve.client.errors`.
        """
        request = pb.SimilarItemsRequest(
            item_id=item_id,
            k=k,
            model=_selector(model),
            exclude_item_ids=exclude,
            allow_item_ids=allow,
            allow_categories=allow_categories,
            min_score=min_score,
            offset=offset,
            include_titles=include_titles,
        )
        return to_list(self._call(self._stub.SimilarItems, request))

    def info(self) -> ServerInfo:
        """What the server serves and accepts.

        Raises:
            RecommenderError: See `serve.client.errors`.
        """
        answer = self._call(self._stub.GetInfo, pb.GetInfoRequest())
        limits = {field.name: getattr(answer.limits, field.name) for field in pb.Limits.DESCRIPTOR.fields}
        return ServerInfo(answer.server_version, tuple(to_model_info(model) for model in answer.models), limits)


def _requests(subjects: Iterable[str | Sequence[str]], options: QueryOptions) -> list[pb.RecommendRequest]:
    return [
        _request(one, None, **options) if isinstance(one, str) else _request(None, one, **options) for one in subjects
    ]


def _outcome(entry: pb.BatchRecommendEntry) -> RecommendationList | RecommenderError:
    return to_list(entry.response) if entry.HasField("response") else error_from_status(entry.status)


def _request(
    user_id: str | None,
    history: Sequence[str] | None,
    *,
    model: str = "",
    exclude: Sequence[str] = (),
    allow: Sequence[str] = (),
    recent: Sequence[str] = (),
    **fields: Any,
) -> pb.RecommendRequest:
    return pb.RecommendRequest(
        user_id=user_id,
        history=None if history is None else pb.History(item_ids=history),
        model=_selector(model),
        exclude_item_ids=exclude,
        allow_item_ids=allow,
        recent_item_ids=recent,
        **fields,
    )


def _selector(model: str) -> pb.ModelSelector | None:
    if not model:
        return None
    name, _, revision = model.partition(":")
    # Versions are numbers and labels are words, so one text can name either.
    if revision.isdecimal():
        return pb.ModelSelector(name=name, version=revision)
    return pb.ModelSelector(name=name, label=revision or None)
