"""From a question to an answer: subject → vector → candidates → mask → top-k. Pure, synchronous, in batches.

An index is asked for as many candidates as could possibly be masked (k + offset + seen + excluded), so that a
full answer never depends on luck; where that is too many, or an approximate index finds fewer, every item is
scored. Where the model has an answer table (the best items that each known user does not have, ranked exactly when the
bundle was made), plain questions of known users are looked up instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from serve.answers.admission import Deadline
from serve.answers.errors import FoldInUnavailable, RequestError, UnknownHistory, UnknownItem, UnknownUser, WrongShard
from serve.answers.limits import RERANKED
from serve.answers.ports import CandidateIndex, Catalogue, FoldIn, ItemScorer, RemoteIndex
from serve.answers.selection import (
    NO_ROWS,
    Selection,
    cut,
    diversify,
    first_good,
    relevance_of,
    reorder,
    walk,
)
from serve.answers.types import Answers, Query, Recommendation, Rows, Scores, SimilarQuery, Source

NO_SCORES: Scores = np.empty(0, dtype=np.float32)
NO_VECTORS: npt.NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
LOOK_EVERY = 16
"""Answers finished between two looks at whether they are still wanted."""
SCORED_AT_ONCE = 1 << 22
"""Most items scored between two looks at whether the answers are still wanted: tens of milliseconds."""
WALKED = 256
"""Rankings up to this length, with no more to leave out, are walked in plain Python."""
MAX_OVER_FETCH = 1024
"""Most candidates to ask of an index in this process: from there on, scoring every item takes less."""
MAX_FOLDED = 1000
"""Most of a user's own items that are folded in with recent ones."""


def go_on() -> None:
    """Nobody looks whether an answer is still wanted."""


class AnswerTable:
    """N ready answers for each of U users. Immutable.

    Args:
        rows: Item rows, best first, -1 behind the last where a user has fewer than N left, shape (U, N).
        scores: Shape (U, N).
        num_items: Number of items there are.

    Attributes:
        length: N.
    """

    def __init__(self, rows: npt.NDArray[np.int32], scores: Scores, num_items: int) -> None:
        self._rows = rows
        self._scores = scores
        self.length = rows.shape[1]
        self._holds_all = rows.shape[1] >= num_items

    def look_up(self, user_index: int, query: Query | SimilarQuery, blocked: Rows) -> tuple[Rows, Scores] | None:
        """The best items of a user.

        Args:
            user_index: Row of the user; -1 where no known user asks.
            query: Its question.
            blocked: Rows never to answer with: what the user has, and what the question excludes.

        Returns:
            Rows and scores, best first: k + offset of them, or all that are left; None where the table does not reach
            that far, or cannot have the answer.
        """
        if user_index < 0 or not isinstance(query, Query) or not _is_plain(query):
            return None
        rows, scores = self._rows[user_index], self._scores[user_index]
        is_all = rows[-1] < 0 or self._holds_all
        if rows[-1] < 0:
            length = np.count_nonzero(rows >= 0)
            rows, scores = rows[:length], scores[:length]
        if query.exclude_item_ids:
            free = ~np.isin(rows, blocked)
            rows, scores = rows[free], scores[free]
        wanted = query.k + query.offset
        return (rows[:wanted], scores[:wanted]) if is_all or len(rows) >= wanted else None


def _is_plain(query: Query) -> bool:
    """Whether the answer is the user's best items but those it has; whoever asks for `exact` has every item scored."""
    restricted = query.allow_item_ids or query.allow_categories or query.include_seen
    return not (restricted or query.recent or query.reranks or query.exact)


@dataclass(slots=True)
class _Task:
    """A question on its way, in row numbers; `vector` is None if popular, `user_index` -1 where no user asks.

    `complete` if no item is missed, `ranked` if no row is to be left out any more and all are in order; `failure` is
    why an index past this process found nothing.
    """

    position: int
    query: Query | SimilarQuery
    source: Source
    vector: npt.NDArray[np.float32] | None
    blocked: Rows
    allowed: Rows | None
    unknown: list[str]
    exact: bool
    rows: Rows = field(default_factory=lambda: NO_ROWS)
    scores: Scores = field(default_factory=lambda: NO_SCORES)
    user_index: int = -1
    ranked: bool = False
    complete: bool = True
    failure: RequestError | None = None

    @property
    def wanted(self) -> int:
        if isinstance(self.query, Query) and self.query.reranks:
            return RERANKED
        return self.query.k + self.query.offset


class Recommender:
    """Answers questions about one model. Thread-safe: it keeps nothing between calls.

    Args:
        name: The model's, for errors.
        catalogue: Users and items, N of them.
        index: Approximate or exact search over the item embeddings.
        exact: Exact search over the item embeddings, by inner product.
        cosine: Exact search over the item embeddings scaled to unit length.
        fold_in: Histories to vectors; None when the model cannot.
        answers: Ready answers of the users; None when there are none.
        max_over_fetch: Most candidates to ask of an approximate index; for more, every item is scored.
    """

    def __init__(
        self,
        name: str,
        catalogue: Catalogue,
        *,
        index: CandidateIndex,
        exact: ItemScorer,
        cosine: ItemScorer,
        fold_in: FoldIn | None = None,
        answers: AnswerTable | None = None,
        max_over_fetch: int = MAX_OVER_FETCH,
    ) -> None:
        self.name = name
        self.catalogue = catalogue
        self._index = index
        self._exact = exact
        self._cosine = cosine
        self._fold_in = fold_in
        self.answers = answers
        self._max_over_fetch = max_over_fetch
        self._num_items = exact.num_items
        self._selection = Selection(catalogue)

    @property
    def has_fold_in(self) -> bool:
        """Whether histories can be answered."""
        return self._fold_in is not None

    def recommend(
        self, queries: Sequence[Query], check: Callable[[], None] = go_on, deadline: Deadline | None = None
    ) -> Answers:
        """Answer a batch of questions; one that fails does not fail the others.

        Args:
            queries: Already checked against the server's limits.
            check: Called between parts that take long; what it raises ends the work.
            deadline: Of whoever waits: an index past this process is waited for no longer; None for no bound.

        Returns:
            One outcome per question, and where the time went.
        """
        started = perf_counter_ns()
        tasks: list[_Task] = []
        failures: dict[int, RequestError] = {}
        for position, query in enumerate(queries):
            if query.allow_categories:
                check()
            try:
                tasks.append(self._encode(position, query))
            except RequestError as error:
                failures[position] = error
        index = self._index
        if deadline is not None and isinstance(index, RemoteIndex):
            index = index.until(deadline)
        return self._answer(tasks, failures, index, self._exact, started, check)

    def similar_items(self, query: SimilarQuery) -> Answers:
        """Answer an item-to-item question, exactly, by cosine.

        Args:
            query: Already checked against the server's limits.

        Returns:
            One outcome, and where the time went.
        """
        started = perf_counter_ns()
        try:
            tasks, failures = [self._encode_item(query)], {}
        except RequestError as error:
            tasks, failures = [], {0: error}
        return self._answer(tasks, failures, self._cosine, self._cosine, started)

    def _answer(
        self,
        tasks: list[_Task],
        failures: dict[int, RequestError],
        index: CandidateIndex,
        exact: ItemScorer,
        started: int,
        check: Callable[[], None] = go_on,
    ) -> Answers:
        encoded = perf_counter_ns()
        self._search(tasks, index, exact, check)
        searched = perf_counter_ns()
        outcomes: dict[int, Recommendation | Exception] = {**failures}
        for number, task in enumerate(tasks):
            if number % LOOK_EVERY == LOOK_EVERY - 1:
                check()
            outcomes[task.position] = task.failure or self._finish(task, exact, check)
        filtered = perf_counter_ns()
        in_order = [outcomes[position] for position in range(len(outcomes))]
        return Answers(in_order, encoded - started, searched - encoded, filtered - searched)

    def _encode(self, position: int, query: Query) -> _Task:
        allowed, unlisted = self._selection.allowed(query.allow_item_ids, query.allow_categories)
        user_index = self.catalogue.user_ids.index_of(query.user_id) if query.user_id is not None else -1
        if query.user_id is None:
            source, (vector, has, unknown) = Source.FOLD_IN, self._encode_history(query)
        elif query.recent:
            source, (vector, has, unknown) = Source.UPDATED, self._encode_updated(query, user_index)
        else:
            source, (vector, has, unknown) = Source.PERSONAL, self._encode_user(query, user_index)
        if vector is not None and not vector.any():
            vector = None  # every item would score 0, and the order of the catalogue pass for an answer
        blocked = self._selection.blocked(NO_ROWS if query.include_seen else has, query.exclude_item_ids)
        return _Task(
            position=position,
            query=query,
            source=source if vector is not None else Source.POPULAR,
            vector=vector,
            blocked=blocked,
            allowed=allowed,
            unknown=list(dict.fromkeys([*unknown, *unlisted])) if unknown or unlisted else [],
            exact=query.exact,
            user_index=user_index,
        )

    def _encode_user(self, query: Query, user_index: int) -> tuple[npt.NDArray[np.float32] | None, Rows, list[str]]:
        if user_index >= 0:
            embedding = self.catalogue.user_embeddings[user_index]
            return embedding.astype(np.float32, copy=False), self._selection.seen(user_index), []
        user_id, shard = query.user_id or "", self.catalogue.user_shard
        if shard is not None and (home := shard.home_of(user_id)) != shard.shard:
            raise WrongShard(user_id, self.name, home, shard.shard, shard.of)
        if not query.allow_fallback:
            raise UnknownUser(user_id)
        return None, NO_ROWS, []

    def _encode_updated(self, query: Query, user_index: int) -> tuple[npt.NDArray[np.float32] | None, Rows, list[str]]:
        """A user's own vector, moved as far as its fold-in moves when the recent items join what it has."""
        vector, has, _ = self._encode_user(query, user_index)
        recent, unknown = self._selection.rows_of(query.recent)
        if vector is None or not len(recent):
            return vector, np.concatenate([has, recent]), unknown
        if self._fold_in is None:
            raise FoldInUnavailable(self.name)
        before = has[-MAX_FOLDED:].astype(np.int64)
        after = self._fold_in.encode(np.unique(np.concatenate([before, recent])))
        reference = self._fold_in.encode(before) if len(before) else np.zeros_like(after)
        # Trained and folded-in vectors agree in direction, not in length.
        length = np.linalg.norm(reference if len(before) else after)
        scale = np.linalg.norm(vector) / length if length > 0 else np.float32(1)
        step = self._fold_in.recent_step * scale
        moved: npt.NDArray[np.float32] = (vector + step * (after - reference)).astype(np.float32)
        return moved, np.concatenate([has, recent]), unknown

    def _encode_history(self, query: Query) -> tuple[npt.NDArray[np.float32] | None, Rows, list[str]]:
        history, unknown = self._selection.rows_of(query.history)
        if len(history) and self._fold_in is not None:
            return self._fold_in.encode(history), history, unknown
        if query.allow_fallback:
            return None, history, unknown
        if self._fold_in is None:
            raise FoldInUnavailable(self.name)
        raise UnknownHistory(", ".join([*query.history[:3], *(["..."] if len(query.history) > 3 else [])]))

    def _encode_item(self, query: SimilarQuery) -> _Task:
        row = self.catalogue.item_ids.index_of(query.item_id)
        if row < 0:
            raise UnknownItem(query.item_id)
        allowed, unknown = self._selection.allowed(query.allow_item_ids, query.allow_categories)
        return _Task(
            position=0,
            query=query,
            source=Source.SIMILAR,
            vector=self._cosine.item_vector(row),
            blocked=self._selection.blocked(np.array([row]), query.exclude_item_ids),
            allowed=allowed,
            unknown=unknown,
            exact=True,
        )

    def _search(self, tasks: list[_Task], index: CandidateIndex, exact: ItemScorer, check: Callable[[], None]) -> None:
        groups: dict[tuple[bool, int], list[_Task]] = {}
        for task in tasks:
            if task.vector is None:
                task.rows, task.scores = self._selection.popular(task.wanted, task.blocked, task.allowed)
                task.ranked = True
            elif self.answers and (ready := self.answers.look_up(task.user_index, task.query, task.blocked)):
                (task.rows, task.scores), task.ranked = ready, True
            elif task.allowed is not None:
                check()
                rows = self._selection.without(task.allowed, task.blocked)
                task.rows, task.scores = rows, exact.score(task.vector, rows)
            else:
                fetch = self._over_fetch(task)
                scan = task.exact or (fetch > self._max_over_fetch and not index.is_exact)
                # Requests of like size share a search, more so where it reads all items; one alone shares with none.
                step = 1 << (fetch - 1).bit_length() if scan or index.is_exact else 16
                size = fetch if len(tasks) == 1 else min(-(-fetch // step) * step, self._num_items)
                groups.setdefault((scan, size), []).append(task)
        at_once = max(1, SCORED_AT_ONCE // self._num_items)
        for (scan, size), group in groups.items():
            asked: CandidateIndex = exact if scan else index
            step = at_once if asked.is_exact else len(group)
            for first in range(0, len(group), step):
                if first:
                    check()
                _search_group(group[first : first + step], asked, size)

    def _over_fetch(self, task: _Task) -> int:
        return min(task.wanted + len(task.blocked), self._num_items)

    def _finish(self, task: _Task, exact: ItemScorer, check: Callable[[], None]) -> Recommendation:
        query = task.query
        rows, scores = self._eligible(task)
        if len(rows) < task.wanted and not task.complete:
            # The approximate index found fewer than it was asked for: no answer may be short for that reason.
            check()
            _search_group([task], exact, self._over_fetch(task))
            rows, scores = self._eligible(task)
        if task.vector is not None and isinstance(query, Query) and query.reranks:
            check()
            rows, scores = self._rerank(query, np.asarray(rows), np.asarray(scores, dtype=np.float32))
        min_score = None if task.source is Source.POPULAR else query.min_score
        rows, scores, shortfall = cut(rows, scores, offset=query.offset, k=query.k, min_score=min_score)
        titles = self.catalogue.item_titles if query.include_titles else None
        return Recommendation(
            item_ids=self.catalogue.item_ids.take(rows),
            scores=scores,
            source=task.source,
            shortfall=shortfall,
            titles=titles.take(rows) if titles is not None else [],
            unknown_item_ids=task.unknown,
        )

    def _rerank(self, query: Query, rows: Rows, scores: Scores) -> tuple[Rows, Scores]:
        pool = min(first_good(scores, query.min_score), RERANKED)
        pooled = rows[:pool]
        relevance = relevance_of(scores[:pool], self._selection.popularity_shares[pooled], query.popularity_discount)
        vectors = self._cosine.item_vectors(pooled) if query.diversity > 0 else NO_VECTORS
        return reorder(rows, scores, diversify(relevance, vectors, query.diversity, query.offset + query.k))

    def _eligible(self, task: _Task) -> tuple[Rows, Scores] | tuple[list[int], list[float]]:
        rows, scores = task.rows, task.scores
        if task.ranked:
            return rows, scores
        if task.allowed is None and len(rows) <= WALKED and len(task.blocked) <= WALKED:
            return walk(rows, scores, task.blocked)
        keep = self._selection.free(rows, task.blocked) & (rows >= 0)
        rows, scores = rows[keep], scores[keep]
        order = np.lexsort((rows, -scores))
        return rows[order], scores[order]


def _search_group(group: list[_Task], index: CandidateIndex, size: int) -> None:
    found = [task.vector for task in group if task.vector is not None]
    vectors = found[0][None] if len(found) == 1 else np.stack(found)
    try:
        scores, rows = index.search(vectors, size)
    except RequestError as error:
        for task in group:
            task.failure = error
        return
    for number, task in enumerate(group):
        task.rows, task.scores, task.complete = rows[number], scores[number], index.is_exact
