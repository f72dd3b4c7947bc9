"""What a client returns: lists of items, models and servers, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb


@dataclass(frozen=True, slots=True)
class Item:
    """One recommended item; `title` is empty where it was not asked for or the model has none."""

    item_id: str
    score: float
    title: str = ""


@dataclass(frozen=True, slots=True)
class RecommendationList:
    """An answer, best item first; iterating over it yields each `Item`.

    Attributes:
        item_ids: Best first.
        scores: scores[i] belongs to item_ids[i].
        titles: titles[i] belongs to item_ids[i]; empty where not asked for or the model has none.
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


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the server describes it; the proto's `Model` defines the fields.

    Attributes:
        user_shard: Which shard of the users the server has, from 0; None where it has all.
        user_shards: How many shards there are; 1 where it has all.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    bundle_id: str
    backbone: str
    method: str
    teacher: str
    dim: int
    num_parameters: int
    users: int
    items: int
    quality: Mapping[str, float]
    index: str
    index_search: Mapping[str, int]
    ann_recall: float
    ann_recall_k: int
    bytes_per_item: float
    has_fold_in: bool
    has_titles: bool
    categories: tuple[str, ...]
    is_default_version: bool
    is_default: bool
    ready_answers: int
    user_shard: int | None
    user_shards: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server serves and accepts.

    Attributes:
        server_version: Version of Lowpass that the server runs.
        models: The default first.
        limits: Name → bound, as in the proto's `Limits`.
    """

    server_version: str
    models: tuple[ModelInfo, ...]
    limits: Mapping[str, int]


def to_list(answer: Any) -> RecommendationList:
    """Convert a `RecommendResponse` or a `SimilarItemsResponse`."""
    return RecommendationList(
        item_ids=tuple(answer.item_ids),
        scores=tuple(answer.scores),
        titles=tuple(answer.titles),
        model=answer.model,
        version=answer.version,
        source=pb.Source.Name(answer.source).removeprefix("SOURCE_").lower(),
        shortfall=_shortfall(answer.shortfall),
        unknown_item_ids=tuple(answer.unknown_item_ids),
        timings_us={
            field.name.removesuffix("_us"): getattr(answer.timings, field.name)
            for field in pb.Timings.DESCRIPTOR.fields
        },
    )


def _shortfall(value: pb.Shortfall) -> str:
    if value == pb.SHORTFALL_UNSPECIFIED:
        return ""
    return pb.Shortfall.Name(value).removeprefix("SHORTFALL_").lower()


def to_model_info(model: pb.Model) -> ModelInfo:
    """Convert a `Model`."""
    return ModelInfo(
        name=model.name,
        version=model.version,
        labels=tuple(model.labels),
        bundle_id=model.bundle_id,
        backbone=model.backbone,
        method=model.method,
        teacher=model.teacher,
        dim=model.dim,
        num_parameters=model.num_parameters,
        users=model.users,
        items=model.items,
        quality=dict(model.quality),
        index=model.index.factory,
        index_search=dict(model.index.search),
        ann_recall=model.index.ann_recall,
        ann_recall_k=model.index.ann_recall_k,
        bytes_per_item=model.index.bytes_per_item,
        has_fold_in=model.has_fold_in,
        has_titles=model.has_titles,
        categories=tuple(model.categories),
        is_default_version=model.is_default_version,
        is_default=model.is_default,
        ready_answers=model.ready_answers,
        user_shard=model.user_shard.shard if model.HasField("user_shard") else None,
        user_shards=model.user_shard.of or 1,
    )
