"""Between protobuf messages and the types of the domain; nothing is decided here but the defaults of the interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve.answers.errors import FieldViolation, InvalidRequest
from serve.answers.limits import Limits
from serve.answers.types import ModelSummary, Query, Recommendation, Shortfall, SimilarQuery, Source
from serve.live.store import ModelStore, ModelVersions, ServedModel
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb

_SOURCES = {
    Source.PERSONAL: pb.SOURCE_PERSONAL,
    Source.FOLD_IN: pb.SOURCE_FOLD_IN,
    Source.POPULAR: pb.SOURCE_POPULAR,
    Source.SIMILAR: pb.SOURCE_SIMILAR,
    Source.UPDATED: pb.SOURCE_UPDATED,
}
_LISTS = {"exclude_item_ids", "allow_item_ids", "allow_categories", "recent_item_ids"}
_SHORTFALLS = {
    Shortfall.NONE: pb.SHORTFALL_UNSPECIFIED,
    Shortfall.EXHAUSTED: pb.SHORTFALL_EXHAUSTED,
    Shortfall.BELOW_MIN_SCORE: pb.SHORTFALL_BELOW_MIN_SCORE,
}


def to_query(request: pb.RecommendRequest, limits: Limits) -> Query:
    """A checked question.

    Raises:
        InvalidRequest: Naming every wrong field.
    """
    # Only what was sent is looked at: most requests set two fields of sixteen.
    given: dict[str, Any] = {field.name: value for field, value in request.ListFields()}
    given.pop("model", None)
    history = given.pop("history", None)
    if history is not None:
        given["history"] = tuple(history.item_ids)
    elif "user_id" not in given:
        raise InvalidRequest(FieldViolation("subject", "is not set; send user_id or history"))
    for name in _LISTS & given.keys():
        given[name] = tuple(given[name])
    if "recent_item_ids" in given:
        given["recent"] = given.pop("recent_item_ids")
    query = Query(**{"k": limits.default_k, **given})
    limits.check_query(query)
    return query


def to_similar_query(request: pb.SimilarItemsRequest, limits: Limits) -> SimilarQuery:
    """A checked item-to-item question.

    Raises:
        InvalidRequest: Naming every wrong field.
    """
    query = SimilarQuery(
        item_id=request.item_id,
        k=request.k or limits.default_k,
        exclude_item_ids=tuple(request.exclude_item_ids),
        allow_item_ids=tuple(request.allow_item_ids),
        allow_categories=tuple(request.allow_categories),
        min_score=request.min_score if request.HasField("min_score") else None,
        offset=request.offset,
        include_titles=request.include_titles,
    )
    limits.check_similar(query)
    return query


def to_selection(selector: pb.ModelSelector, limits: Limits) -> tuple[str, str, str]:
    """Name, version and label of the model that is asked, each maybe empty.

    Raises:
        InvalidRequest: Naming every one that is too long.
    """
    name, version, label = selector.name, selector.version, selector.label
    if len(name) + len(version) + len(label) > limits.max_id_bytes // 4:
        limits.check_selection(name=name, version=version, label=label)
    return name, version, label


def to_timings(nanoseconds: Sequence[int]) -> pb.Timings:
    """Timings from nanoseconds in the order queue, encode, search, filter, total."""
    queue, encode, search, filtered, total = nanoseconds
    return pb.Timings(
        queue_us=queue // 1000,
        encode_us=encode // 1000,
        search_us=search // 1000,
        filter_us=filtered // 1000,
        total_us=total // 1000,
    )


def to_response(answer: Recommendation, model: ModelSummary, timings: pb.Timings) -> pb.RecommendResponse:
    """An answer as it is sent."""
    return pb.RecommendResponse(**_answer_fields(answer, model), timings=timings)


def to_similar_response(answer: Recommendation, model: ModelSummary, timings: pb.Timings) -> pb.SimilarItemsResponse:
    """An item-to-item answer as it is sent."""
    return pb.SimilarItemsResponse(**_answer_fields(answer, model), timings=timings)


def _answer_fields(answer: Recommendation, model: ModelSummary) -> dict[str, Any]:
    return {
        "item_ids": answer.item_ids,
        "scores": answer.scores,
        "titles": answer.titles,
        "model": model.name,
        "version": model.version,
        "source": _SOURCES[answer.source],
        "shortfall": _SHORTFALLS[answer.shortfall],
        "unknown_item_ids": answer.unknown_item_ids,
    }


def to_info(store: ModelStore, limits: Limits, server_version: str) -> pb.GetInfoResponse:
    """What is served and accepted."""
    models = store.models
    return pb.GetInfoResponse(
        server_version=server_version,
        models=[_to_model(model, store.versions(model.summary.name), model is models[0]) for model in models],
        limits=to_limits(limits),
    )


def to_limits(limits: Limits) -> pb.Limits:
    """Limits as they are sent."""
    return pb.Limits(
        max_k=limits.max_k,
        default_k=limits.default_k,
        max_offset=limits.max_offset,
        max_batch=limits.max_batch,
        max_batch_cost=limits.max_batch_cost,
        max_history=limits.max_history,
        max_exclude=limits.max_exclude,
        max_allow=limits.max_allow,
        max_categories=limits.max_categories,
        max_id_bytes=limits.max_id_bytes,
        max_message_bytes=limits.max_message_bytes,
        max_in_flight=limits.max_in_flight,
        max_wait_ms=round(limits.max_wait * 1000),
        max_deadline_ms=round(limits.max_deadline * 1000),
        max_stream=limits.max_stream,
        max_stream_deadline_ms=round(limits.max_stream_deadline * 1000),
        max_concurrent_streams=limits.max_concurrent_streams,
        max_connection_age_ms=round(limits.max_connection_age * 1000),
    )


def _to_model(model: ServedModel, entry: ModelVersions, is_default: bool) -> pb.Model:
    summary, catalogue = model.summary, model.recommender.catalogue
    shard = catalogue.user_shard
    return pb.Model(
        name=summary.name,
        version=summary.version,
        labels=entry.labels_of(summary.version),
        bundle_id=summary.bundle_id,
        backbone=summary.backbone,
        method=summary.method,
        teacher=summary.teacher,
        dim=summary.dim,
        num_parameters=summary.num_parameters,
        users=summary.users,
        items=summary.items,
        quality=summary.quality,
        index=pb.IndexInfo(
            factory=summary.index.factory,
            search=summary.index.search,
            ann_recall=summary.index.ann_recall,
            ann_recall_k=summary.index.ann_recall_k,
            bytes_per_item=summary.index.bytes_per_item,
        ),
        has_fold_in=model.recommender.has_fold_in,
        has_titles=catalogue.item_titles is not None,
        categories=catalogue.category_names,
        is_default_version=entry.default == summary.version,
        is_default=is_default,
        ready_answers=model.recommender.answers.length if model.recommender.answers is not None else 0,
        user_shard=None if shard is None else pb.UserShard(shard=shard.shard, of=shard.of),
    )
