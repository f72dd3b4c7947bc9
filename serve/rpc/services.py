"""The methods of the public interface: convert, ask the recommender, convert back. No transport."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from serve.answers.admission import Deadline
from serve.answers.blocks import answer_in_blocks
from serve.answers.call import Call
from serve.answers.errors import DeadlineExpired, Overloaded, RequestError, WrongShard
from serve.answers.limits import Limits
from serve.answers.types import Answers, Query, Recommendation
from serve.live.shadow import Shadow
from serve.live.store import ModelStore, ServedModel
from serve.rpc.convert import (
    to_info,
    to_query,
    to_response,
    to_selection,
    to_similar_query,
    to_similar_response,
    to_timings,
)
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.status import INTERNAL, to_status
from serve.telemetry.logs import trace_of
from serve.telemetry.metrics import Metrics

LOG = logging.getLogger("lowpass.serve")
UNANSWERED = pb.RecommendResponse()
STREAM_BLOCK = 64
"""Entries in a part of a streamed batch; what is held in memory of its answers."""
STREAM_RETRY = 1.0
"""When to come back with a streamed batch that found no place, in seconds."""
SERVICE: str = pb.DESCRIPTOR.services_by_name["RecommenderService"].full_name


@dataclass(frozen=True)
class Method:
    """One method of a service.

    Args:
        name: Without the service.
        handle: Answers, or raises a `RequestError`.
        handle_many: Answers several at once, an error or a defect in the place of an answer; None where that gains
            nothing.
    """

    name: str
    request: type[Message]
    response: type[Message]
    handle: Callable[[Any, Call], Message]
    handle_many: Callable[[Sequence[Any], Sequence[Call]], Sequence[Message | Exception]] | None = None


Part = TypeVar("Part")
Parts = Generator[Part, None, None]
"""An answer in parts; closing it ends the work on the rest."""


@dataclass(frozen=True)
class StreamMethod:
    """A method that answers in parts.

    Args:
        name: Without the service.
        response: The message of a part.
        stream: Yields parts, and may raise a `RequestError` before any of them.
    """

    name: str
    request: type[Message]
    response: type[Message]
    stream: Callable[[Any, Call], Parts[Message]]


AnyMethod = Method | StreamMethod


class RecommenderService:
    """The methods over a store of models.

    Args:
        metrics: Where stages and sources are counted.
        shadow: Takes note of what was answered; None for nobody.
        max_streams: Streamed batches in work at a time: each holds a thread for long.
    """

    def __init__(
        self,
        store: ModelStore,
        limits: Limits,
        metrics: Metrics,
        server_version: str,
        shadow: Shadow | None = None,
        max_streams: int = 1,
    ) -> None:
        self._store = store
        self._limits = limits
        self._metrics = metrics
        self._server_version = server_version
        self._shadow = shadow
        self._streams = threading.Semaphore(max_streams)

    def methods(self) -> tuple[AnyMethod, ...]:
        """All of them, for a transport to register."""
        return (
            Method("Recommend", pb.RecommendRequest, pb.RecommendResponse, self.recommend, self.recommend_many),
            Method("BatchRecommend", pb.BatchRecommendRequest, pb.BatchRecommendResponse, self.batch),
            StreamMethod("StreamRecommend", pb.StreamRecommendRequest, pb.StreamRecommendResponse, self.stream),
            Method("SimilarItems", pb.SimilarItemsRequest, pb.SimilarItemsResponse, self.similar_items),
            Method("GetInfo", pb.GetInfoRequest, pb.GetInfoResponse, self.get_info),
        )

    def recommend(self, request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
        """Answer one question."""
        query = to_query(request, self._limits)
        with self._find(request.model, call, asker(query)) as model:
            answers = model.recommender.recommend([query], deadline=call.deadline)
        self._count_wrong_shards(model, answers)
        answer = _only(answers)
        self._metrics.answer(call.model, answer.source)
        response = to_response(answer, model.summary, self._timings(model, answers, call))
        self._note(model, query, answer, answers)
        return response

    def recommend_many(
        self, requests: Sequence[pb.RecommendRequest], calls: Sequence[Call]
    ) -> list[Message | Exception]:
        """Answer the questions of several calls, each model once."""
        outcomes: list[Message | Exception] = [UNANSWERED] * len(requests)
        groups: dict[ServedModel, list[tuple[int, Query]]] = {}
        for place, (request, call) in enumerate(zip(requests, calls, strict=True)):
            try:
                query = to_query(request, self._limits)
                groups.setdefault(self._find(request.model, call, asker(query)), []).append((place, query))
            except RequestError as error:
                outcomes[place] = error
        for model, members in groups.items():
            left = members
            while left:
                left = self._answer_joint(model, left, calls, outcomes)
        return outcomes

    def _answer_joint(
        self,
        model: ServedModel,
        members: list[tuple[int, Query]],
        calls: Sequence[Call],
        outcomes: list[Message | Exception],
    ) -> list[tuple[int, Query]]:
        """Answer several callers within the shortest of their times; returns who has more of it and no answer."""
        soonest = Deadline(min(calls[place].deadline.at for place, _ in members))
        with model:
            answers = answer_in_blocks(model.recommender, [query for _, query in members], deadline=soonest)
        self._count_wrong_shards(model, answers)
        left = []
        for (place, query), outcome in zip(members, answers.outcomes, strict=True):
            if isinstance(outcome, DeadlineExpired) and calls[place].deadline.at > soonest.at:
                left.append((place, query))
            elif isinstance(outcome, Exception):
                outcomes[place] = outcome
            else:
                self._metrics.answer(model.summary.name, outcome.source)
                timings = self._timings(model, answers, calls[place])
                outcomes[place] = to_response(outcome, model.summary, timings)
                self._note(model, query, outcome, answers)
        return left

    def batch(self, request: pb.BatchRecommendRequest, call: Call) -> pb.BatchRecommendResponse:
        """Answer many questions, each with a status of its own."""
        self._limits.check_batch(len(request.requests))
        return pb.BatchRecommendResponse(entries=self._entries(request.requests, call, self._limits.check_cost))

    def stream(self, request: pb.StreamRecommendRequest, call: Call) -> Parts[pb.StreamRecommendResponse]:
        """Answer very many questions, a block after the other, as long as somebody waits for them."""
        self._limits.check_stream(len(request.requests))
        if not self._streams.acquire(blocking=False):
            raise Overloaded(STREAM_RETRY)
        named = set()
        try:
            for first in range(0, len(request.requests), STREAM_BLOCK):
                call.check()
                entries = self._entries(request.requests[first : first + STREAM_BLOCK], call)
                named.add((call.model, call.version))
                yield pb.StreamRecommendResponse(first_position=first, entries=entries)
            if len(named) > 1:
                call.model = call.version = ""
        finally:
            self._streams.release()

    def _entries(
        self,
        requests: Sequence[pb.RecommendRequest],
        call: Call,
        check_cost: Callable[[Sequence[Query]], None] = lambda _: None,
    ) -> list[pb.BatchRecommendEntry]:
        entries: list[pb.BatchRecommendEntry | None] = [None] * len(requests)
        groups: dict[ServedModel, list[tuple[int, Query]]] = {}
        for position, entry in enumerate(requests):
            try:
                query = to_query(entry, self._limits)
                model = self._store.find(*to_selection(entry.model, self._limits), asker(query))
            except RequestError as error:
                entries[position] = pb.BatchRecommendEntry(status=to_status(error))
            else:
                groups.setdefault(model, []).append((position, query))
        check_cost([query for members in groups.values() for _, query in members])
        for model, members in groups.items():
            self._answer_group(model, members, entries, call)
        if len(groups) > 1:
            call.model = call.version = ""
        return [entry for entry in entries if entry is not None]

    def similar_items(self, request: pb.SimilarItemsRequest, call: Call) -> pb.SimilarItemsResponse:
        """Answer one item-to-item question."""
        query = to_similar_query(request, self._limits)
        with self._find(request.model, call) as model:
            answers = model.recommender.similar_items(query)
        answer = _only(answers)
        self._metrics.answer(call.model, answer.source)
        return to_similar_response(answer, model.summary, self._timings(model, answers, call))

    def get_info(self, _request: pb.GetInfoRequest, _call: Call) -> pb.GetInfoResponse:
        """Say what is served and accepted."""
        return to_info(self._store, self._limits, self._server_version)

    def _note(self, model: ServedModel, query: Query, answer: Recommendation, answers: Answers) -> None:
        model.recorded.append(query)
        if self._shadow is not None:
            self._shadow.offer(model, query, answer, answers)

    def _find(self, selector: pb.ModelSelector, call: Call, key: str = "") -> ServedModel:
        model = self._store.find(*to_selection(selector, self._limits), key)
        call.model, call.version = model.summary.name, model.summary.version
        return model

    def _answer_group(
        self,
        model: ServedModel,
        members: list[tuple[int, Query]],
        entries: list[pb.BatchRecommendEntry | None],
        call: Call,
    ) -> None:
        call.model, call.version = model.summary.name, model.summary.version
        with model:
            answers = answer_in_blocks(model.recommender, [query for _, query in members], call.check, call.deadline)
        timings = self._timings(model, answers, call)
        self._count_wrong_shards(model, answers)
        defects = {}
        for number, ((position, _), outcome) in enumerate(zip(members, answers.outcomes, strict=True)):
            if number % STREAM_BLOCK == 0:
                call.check()
            if isinstance(outcome, RequestError):
                entries[position] = pb.BatchRecommendEntry(status=to_status(outcome))
            elif isinstance(outcome, Exception):
                defects[position] = outcome
                entries[position] = pb.BatchRecommendEntry(status=INTERNAL)
            else:
                self._metrics.answer(call.model, outcome.source)
                response = to_response(outcome, model.summary, timings)
                entries[position] = pb.BatchRecommendEntry(response=response)
        if defects:
            _log_defects(defects, call)

    def _count_wrong_shards(self, model: ServedModel, answers: Answers) -> None:
        if model.recommender.catalogue.user_shard is not None:
            for outcome in answers.outcomes:
                if isinstance(outcome, WrongShard):
                    self._metrics.wrong_shard(model.summary.name)

    def _timings(self, model: ServedModel, answers: Answers, call: Call) -> pb.Timings:
        call.encode_ns += answers.encode_ns
        call.search_ns += answers.search_ns
        call.filter_ns += answers.filter_ns
        spent = (call.queue_ns, answers.encode_ns, answers.search_ns, answers.filter_ns, call.age_ns)
        self._metrics.stages(model.summary.name, spent)
        return to_timings(spent)


def full_name(method: AnyMethod) -> str:
    """A method's name with its service, e.g. "lowpass.v1.RecommenderService/Recommend"."""
    services = method.request.DESCRIPTOR.file.services_by_name.values()
    (service,) = (service for service in services if method.name in service.methods_by_name)
    return f"{service.full_name}/{method.name}"


def asker(query: Query) -> str:
    """Who asks, as a split tells people apart: a user by id, anyone else by history."""
    return query.user_id if query.user_id is not None else "\n".join(query.history)


def _log_defects(defects: Mapping[int, Exception], call: Call) -> None:
    """Log the first defect of a batch, and where the others are: they are mostly one."""
    which = {"model": call.model, "request_id": call.request_id, "positions": list(defects), **trace_of(call)}
    LOG.error("defect in entries of a batch", exc_info=next(iter(defects.values())), extra={"fields": which})


def _only(answers: Answers) -> Recommendation:
    outcome = answers.outcomes[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
