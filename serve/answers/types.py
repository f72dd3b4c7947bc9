"""Questions and answers of the serving room: no protobuf, no grpc, no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.integer[Any]]
"""Row numbers of items or users, shape (n,)."""
Scores = npt.NDArray[np.float32]
"""Scores, shape (n,)."""


class Source(Enum):
    """How an answer came about."""

    PERSONAL = "personal"
    FOLD_IN = "fold_in"
    POPULAR = "popular"
    SIMILAR = "similar"
    UPDATED = "updated"


class Shortfall(Enum):
    """Why an answer holds fewer than k items."""

    NONE = "none"
    EXHAUSTED = "exhausted"
    BELOW_MIN_SCORE = "below_min_score"


@dataclass(slots=True)
class Query:
    """One top-k question.

    Args:
        user_id: A user of the training data; None when `history` says who asks.
        history: Item ids of an anonymous visitor; ignored when `user_id` is given.
        include_seen: Also answer with what the user, or the history, already has.
        exclude_item_ids: Never answer with these.
        allow_item_ids: Answer only with these; empty for all.
        allow_categories: Answer only with items of at least one of these; empty for all.
        min_score: Leave out what scores less; None for no bound.
        offset: How many of the best eligible items to skip.
        exact: Score every item instead of asking the approximate index.
        allow_fallback: Answer an unknown subject with the most popular items.
        include_titles: Also answer with titles.
        recent: Items that `user_id` has taken since training; they move its vector.
        diversity: λ of maximal marginal relevance in [0, 1]; 0 leaves the order as it is.
        popularity_discount: How much an item's popularity counts against it, at least 0.
    """

    user_id: str | None = None
    history: Sequence[str] = ()
    k: int = 10
    include_seen: bool = False
    exclude_item_ids: Sequence[str] = ()
    allow_item_ids: Sequence[str] = ()
    allow_categories: Sequence[str] = ()
    min_score: float | None = None
    offset: int = 0
    exact: bool = False
    allow_fallback: bool = False
    include_titles: bool = False
    recent: Sequence[str] = ()
    diversity: float = 0.0
    popularity_discount: float = 0.0

    @property
    def reranks(self) -> bool:
        """Whether the order is not that of the scores."""
        return self.diversity > 0 or self.popularity_discount > 0


@dataclass(slots=True)
class SimilarQuery:
    """One item-to-item question; the fields it shares with `Query` mean the same.

    Args:
        item_id: The item to start from; never part of the answer.
        exclude_item_ids: Never answer with these.
        allow_item_ids: Answer only with these; empty for all.
        allow_categories: Answer only with items of at least one of these; empty for all.
        min_score: Leave out what has a smaller cosine; None for no bound.
        offset: How many of the best eligible items to skip.
        include_titles: Also answer with titles.
    """

    item_id: str
    k: int = 10
    exclude_item_ids: Sequence[str] = ()
    allow_item_ids: Sequence[str] = ()
    allow_categories: Sequence[str] = ()
    min_score: float | None = None
    offset: int = 0
    include_titles: bool = False


@dataclass(slots=True)
class Recommendation:
    """One answer: parallel sequences, best first, equal scores in the order of item rows.

    Args:
        item_ids: At most k outside ids.
        source: How the answer came about.
        shortfall: Why there are fewer than k, if there are.
        titles: Of the same length; empty when not asked for or not there.
        unknown_item_ids: Ids of the history or the allow list that the model does not know, each once.
    """

    item_ids: list[str]
    scores: list[float]
    source: Source
    shortfall: Shortfall
    titles: list[str] = field(default_factory=list)
    unknown_item_ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Answers:
    """What became of a batch of questions.

    Args:
        outcomes: One per question: the answer, or the reason why there is none: a `RequestError`, or a defect where
            the questions were answered by `answer_in_blocks`.
        encode_ns: Time from ids to vectors, for the whole batch.
        search_ns: Time from vectors to scored candidates.
        filter_ns: Time from candidates to answers.
    """

    outcomes: list[Recommendation | Exception]
    encode_ns: int
    search_ns: int
    filter_ns: int


@dataclass(frozen=True)
class IndexSummary:
    """What is known about a model's search index.

    Args:
        factory: FAISS factory string.
        search: Search parameters in use.
        ann_recall: Share of the exact top `ann_recall_k` that it found when it was built.
        ann_recall_k: The k of `ann_recall`.
        bytes_per_item: Its size divided by the number of items.
    """

    factory: str
    search: Mapping[str, int]
    ann_recall: float
    ann_recall_k: int
    bytes_per_item: float
    size_bytes: int


@dataclass(frozen=True)
class ModelSummary:
    """What is known about a model before it answers.

    Args:
        bundle_id: Content hash.
        backbone: What it is made of.
        method: How it was trained.
        teacher: What it was distilled from; empty for none.
        dim: Length of an embedding.
        num_parameters: Number of parameters.
        users: Number of users.
        items: Number of items.
        quality: Offline metrics by name.
        size_bytes: Of all files of its bundle.
    """

    name: str
    version: str
    bundle_id: str
    backbone: str
    method: str
    teacher: str
    dim: int
    num_parameters: int
    users: int
    items: int
    quality: Mapping[str, float]
    index: IndexSummary
    size_bytes: int
