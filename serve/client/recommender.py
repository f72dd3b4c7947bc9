"""The client that asks for recommendations: typed calls with deadlines, retries and errors that say what to do.

    with RecommenderClient("127.0.0.1:50051") as client:
        for item in client.recommend("user-7", k=5, include_titles=True):
            print(item.title, item.score)

A client holds one connection. Threads may share it, and it is meant to live as long as the program.
`serve.client.errors` lists what its calls raise.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypedDict, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serve.client.answers import RecommendationList, ServerInfo, to_list, to_model_info
from serve.client.channel import GrpcClient
from serve.client.errors import RecommenderError, ServerUnavailable, error_from_status
from serve.client.shards import shards_of, to_metadata
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.pb.lowpass.v1 import recommender_pb2_grpc

MAX_ANSWER_BYTES = 64 << 20
"""The largest answer accepted: as much as a server sends."""
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
    """Keywords of `recommend` beside the subject; the proto's `RecommendRequest` defines them.

    Attributes:
        k: Length of the list; 0 takes the server's default.
        model: `NAME`, `NAME:LABEL` or `NAME:VERSION`; empty takes the server's default.
        include_seen: Whether to recommend what the subject already has, too.
        exclude: Item ids that the list must not hold.
        allow: The only item ids that the list may hold; empty allows all.
        allow_categories: The list holds only items of one of these; empty allows all.
        min_score: The list leaves out what scores less.
        offset: The list begins after this many of the best.
        exact: Whether to score every item instead of asking the index.
        allow_fallback: Whether to answer an unknown subject with popular items.
        include_titles: Whether to send titles.
        recent: Item ids that the user has taken since training.
        diversity: Weight of difference within the list, between 0 and 1.
        popularity_discount: Weight of an item's popularity against it, from 0.
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
    """A connection to a server; a context manager.

    Args:
        target: `host:port`, or any gRPC target.
        timeout: Deadline of each call in seconds, retries included.
        credentials: For TLS; None for plain text.
        api_key: Sent with each call; empty for none.
        options: Channel options that win over the defaults.
        user_shards: Over how many shards the users are spread; each call then names that of its user, for a proxy to
            route by (docs/scale.md). A batch or a stream becomes a call to each shard.

    Raises:
        ValueError: `user_shards` is below 1.
    """

    reads_only = True

    def __init__(
        self,
        target: str,
        timeout: float = 2.0,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str = "",
        options: Sequence[tuple[str, Any]] = (),
        user_shards: int = 1,
    ) -> None:
        if user_shards < 1:
            raise ValueError(f"user_shards: {user_shards} must be at least 1")
        self.user_shards = user_shards
        merged = list({**dict(CHANNEL_OPTIONS), **dict(options)}.items())
        super().__init__(target, timeout, credentials, api_key, merged)
        make_stub: Any = recommender_pb2_grpc.RecommenderServiceStub
        self._stub = make_stub(self._channel)

    def wait_ready(self, timeout: float) -> None:
        """Wait until the server can be reached.

        Raises:
            ServerUnavailable: There was no connection within `timeout` seconds.
        """
        try:
            grpc.channel_ready_future(self._channel).result(timeout)
        except grpc.FutureTimeoutError as error:
            raise ServerUnavailable("UNAVAILABLE", f"no connection within {timeout:g} s") from error

    def recommend(
        self, user_id: str | None = None, *, history: Sequence[str] | None = None, **options: Unpack[QueryOptions]
    ) -> RecommendationList:
        """Return the best items for a user of the training data, or for anyone with a history.

        Args:
            user_id: Id of the user, or None where `history` is given.
            history: Item ids that somebody has taken.
            options: The fields of `QueryOptions`.

        Raises:
            RecommenderError: See `serve.client.errors`.
        """
        request = _request(user_id, history, **options)
        (shard,) = shards_of([user_id if user_id is not None else ()], self.user_shards)
        return to_list(self._call(self._stub.Recommend, request, to_metadata(shard)))

    def batch_recommend(
        self, subjects: Sequence[str | Sequence[str]], **options: Unpack[QueryOptions]
    ) -> list[RecommendationList | RecommenderError]:
        """Answer many subjects in one call; one that fails does not fail the others.

        Args:
            subjects: User ids (strings) and histories (sequences of item ids).
            options: The fields of `QueryOptions`, the same for all.

        Returns:
            For each subject its list or its error; that of the call, where the call to its shard failed.

        Raises:
            RecommenderError: The call as a whole failed, or all of the calls to shards.
        """
        groups = self._by_shard(subjects)
        questions = [
            (pb.BatchRecommendRequest(requests=_requests((subjects[at] for at in places), options)), to_metadata(shard))
            for shard, places in groups.items()
        ]
        answers = self._call_all(self._stub.BatchRecommend, questions)
        if all(isinstance(answer, RecommenderError) for answer in answers):
            raise answers[0]
        outcomes: dict[int, RecommendationList | RecommenderError] = {}
        for places, answer in zip(groups.values(), answers, strict=True):
            failed = isinstance(answer, RecommenderError)
            outcomes |= zip(places, [answer] * len(places) if failed else map(_outcome, answer.entries), strict=True)
        return [outcomes[position] for position in range(len(subjects))]

    def stream_recommend(
        self, subjects: Iterable[str | Sequence[str]], *, timeout: float = 300.0, **options: Unpack[QueryOptions]
    ) -> Generator[RecommendationList | RecommenderError, None, None]:
        """Answer very many subjects in one call, the first ones early; one that fails does not fail the others.

        Args:
            subjects: As in `batch_recommend`; at most the server's `max_stream`.
            timeout: Deadline of the whole stream in seconds; the caller's own work between two answers counts.
            options: The fields of `QueryOptions`, the same for all.

        Yields:
            For each subject, in order, its list or its error. A caller that stops early should close the iterator.

        Raises:
            RecommenderError: The call as a whole failed, or broke off.
        """
        asked = list(subjects)
        answers = {}
        for shard, places in self._by_shard(asked).items():
            requests = _requests([asked[at] for at in places], options)
            pack = partial(_stream_request, requests)
            answers[shard] = self._stream(self._stub.StreamRecommend, pack, to_metadata(shard), timeout)
        try:
            for stream in answers.values():
                next(stream)  # all calls are on their way before one is read
            for shard in shards_of(asked, self.user_shards):
                yield from map(_outcome, islice(answers[shard], 1))
            for rest in answers.values():  # to the end of the call, which may be an error
                yield from map(_outcome, rest)
        finally:
            for stream in answers.values():
                stream.close()

    def _by_shard(self, subjects: Sequence[str | Sequence[str]]) -> dict[int | None, list[int]]:
        """Shard → positions of its subjects; None → those of histories, which any shard answers, or of all."""
        groups: dict[int | None, list[int]] = {}
        for position, shard in enumerate(shards_of(subjects, self.user_shards)):
            groups.setdefault(shard, []).append(position)
        return groups or {None: []}

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
        """Return the items nearest to one by cosine; the keywords are those of `QueryOptions`.

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
        """Return what the server serves and accepts.

        Raises:
            RecommenderError: See `serve.client.errors`.
        """
        answer = self._call(self._stub.GetInfo, pb.GetInfoRequest())
        limits = {field.name: getattr(answer.limits, field.name) for field in pb.Limits.DESCRIPTOR.fields}
        return ServerInfo(answer.server_version, tuple(to_model_info(model) for model in answer.models), limits)

    def is_serving(self) -> bool:
        """Return whether the server has loaded its models and is not about to stop; it needs no key for that.

        Raises:
            RecommenderError: Nobody answers; see `serve.client.errors`.
        """
        make_stub: Any = health_pb2_grpc.HealthStub
        answer = self._call(make_stub(self._channel).Check, health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _requests(subjects: Iterable[str | Sequence[str]], options: QueryOptions) -> list[pb.RecommendRequest]:
    return [
        _request(one, None, **options) if isinstance(one, str) else _request(None, one, **options) for one in subjects
    ]


def _stream_request(requests: Sequence[pb.RecommendRequest], answered: int) -> pb.StreamRecommendRequest:
    return pb.StreamRecommendRequest(requests=requests[answered:])


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
