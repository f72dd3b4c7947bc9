"""Answering a share of the requests again with another model, unseen by the caller, to see how far both agree.

The caller's answer is ready before a request is offered, and nothing it does waits: what does not fit the short queue,
or comes while requests wait for a thread, is shed and counted. Agreement of two top-k lists is their `overlap` and the
`rank_correlation` of what both hold.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from serve.answers.errors import FieldViolation, InvalidRequest, RequestError, VersionNotServed
from serve.answers.types import Answers, Query, Recommendation
from serve.live.background import give_way
from serve.live.store import ModelStore, ServedModel
from serve.telemetry.metrics import ShadowSeries

LOG = logging.getLogger("lowpass.serve")
QUEUED_AT_MOST = 64


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of the longer list that the other one holds too, whatever the ranks; 1 where both are empty."""
    longer = max(len(first), len(second))
    return len(set(first) & set(second)) / longer if longer else 1.0


def rank_correlation(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Spearman's rank correlation of the items that both lists hold (Spearman, 1904); None for fewer than two.

    Args:
        first: Distinct ids, best first.
        second: Likewise.
    """
    places = {item_id: place for place, item_id in enumerate(second)}
    common = np.array([places[item_id] for item_id in first if item_id in places])
    size = len(common)
    if size < 2:
        return None
    ranks = np.argsort(np.argsort(common))
    return float(1 - 6 * np.square(ranks - np.arange(size)).sum() / (size * (size * size - 1)))


@dataclass(frozen=True)
class ShadowRule:
    """Who answers again, and how often.

    Args:
        model: Name of the model.
        revision: A version or a label of it; empty for its default version.
        share: Of the requests, in (0, 1].

    Raises:
        InvalidRequest: The share is out of range.
    """

    model: str
    revision: str
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InvalidRequest(FieldViolation("share", f"is {self.share:g}; give more than 0, at most 1"))


@dataclass(frozen=True, slots=True)
class _Offer:
    rule: ShadowRule
    live: ServedModel
    query: Query
    item_ids: list[str]
    live_ns: int


class Shadow:
    """Shadows of all models, answered by one thread of its own.

    Args:
        store: Where the models that answer again are found.
        series: Where agreement is counted.
        is_busy: Whether requests wait for a thread now.
        prepare_thread: Called once in that thread.
    """

    def __init__(
        self,
        store: ModelStore,
        series: ShadowSeries,
        is_busy: Callable[[], bool],
        prepare_thread: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._series = series
        self._is_busy = is_busy
        self._prepare_thread = prepare_thread
        self._rules: dict[str, ShadowRule] = {}
        self._offers: SimpleQueue[_Offer | None] = SimpleQueue()
        self._random = random.Random()  # noqa: S311 - draws a sample, keeps no secret
        self._thread: threading.Thread | None = None

    def set_rule(self, name: str, rule: ShadowRule | None) -> None:
        """Answer requests of a model again, or no longer.

        Args:
            name: The model's.
            rule: By whom and how often; None for never.

        Raises:
            ModelNotServed: One of both models is not loaded.
            VersionNotServed: The revision is not.
        """
        self._store.versions(name)
        if rule is None:
            self._rules.pop(name, None)
            return
        self._find(rule)
        self._rules = {**self._rules, name: rule}
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="lowpass-shadow", daemon=True)
            self._thread.start()

    def rule(self, name: str) -> ShadowRule | None:
        """Who answers a model's requests again; None for nobody."""
        return self._rules.get(name)

    def offer(self, live: ServedModel, query: Query, answer: Recommendation, answers: Answers) -> None:
        """Take note of an answered question; returns at once.

        Args:
            live: What answered it.
            query: The question.
            answer: The answer.
            answers: Where its time went.
        """
        rule = self._rules.get(live.summary.name)
        if rule is None or self._random.random() >= rule.share:
            return
        if self._is_busy() or self._offers.qsize() >= QUEUED_AT_MOST:
            self._series.count(live.summary, rule.model, "shed")
            return
        spent = answers.encode_ns + answers.search_ns + answers.filter_ns
        self._offers.put(_Offer(rule, live, query, answer.item_ids, spent))

    def stop(self) -> None:
        """Answer nothing more again."""
        self._rules = {}
        if self._thread is not None:
            self._offers.put(None)
            self._thread.join()

    def _find(self, rule: ShadowRule) -> ServedModel:
        entry = self._store.versions(rule.model)
        if not rule.revision:
            return entry.versions[entry.default]
        found = entry.versions.get(rule.revision) or entry.labelled(rule.revision)
        if found is None:
            raise VersionNotServed(rule.revision)
        return found

    def _work(self) -> None:
        give_way()
        if self._prepare_thread is not None:
            self._prepare_thread()
        while (offer := self._offers.get()) is not None:
            try:
                self._compare(offer)
            except Exception:
                LOG.exception("defect in a shadow", extra={"fields": {"model": offer.rule.model}})
                self._series.count(offer.live.summary, offer.rule.model, "failed")

    def _compare(self, offer: _Offer) -> None:
        live = offer.live.summary
        try:
            with self._find(offer.rule) as model:
                answers = model.recommender.recommend([offer.query])
        except RequestError:
            self._series.count(live, offer.rule.model, "failed")
            return
        outcome = answers.outcomes[0]
        if isinstance(outcome, Exception):
            self._series.count(live, offer.rule.model, "failed")
            return
        self._series.count(live, offer.rule.model, "compared")
        self._series.compared(
            live,
            model.summary,
            overlap(offer.item_ids, outcome.item_ids),
            rank_correlation(offer.item_ids, outcome.item_ids),
            offer.live_ns * 1e-9,
            (answers.encode_ns + answers.search_ns + answers.filter_ns) * 1e-9,
        )
