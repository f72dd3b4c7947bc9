"""What a server accepts, and the check that a question keeps to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve.answers.errors import FieldViolation, InvalidRequest

if TYPE_CHECKING:  # The command line reads these limits before NumPy may be imported.
    from serve.answers.types import Query, SimilarQuery

MAX_DISCOUNT = 100.0
RERANKED = 500
"""Best candidates that another order is made of, whatever k is."""
RERANKED_PLACE = 10
"""What a place costs that is chosen by comparing it with `RERANKED` others, in places that are not."""
MAX_ANSWER_BYTES = 64 << 20
"""Largest answer sent; a client must accept as much (`serve.client.recommender` does)."""


def _bound(default: float, text: str, least: float, most: float | None = None) -> Any:
    """A bound that is an option of `lowpass serve` too; `serve.process.options` reads the metadata."""
    return field(default=default, metadata={"help": text, "least": least, "most": most})


@dataclass(frozen=True)
class Limits:
    """Bounds on requests and connections; GetInfo reports them. The first ones are options of `lowpass serve`.

    Args:
        max_connection_age: When the caller of a connection is asked to connect anew, in seconds; 0 for never. A channel
            that turned gRPC's retries off (they are on by default) may then fail what it had not sent: UNAVAILABLE.
        default_k: Meaning of k = 0; never above `max_k`.
        max_stream_deadline: As `max_deadline`, for a streamed batch.
    """

    max_in_flight: int = _bound(256, "Requests in work or waiting, in each worker; more are refused.", 1, 100_000)
    max_wait: float = _bound(
        1.0, "Longest expected wait for a thread in seconds; who would wait longer is refused. 0: no bound.", 0
    )
    max_deadline: float = _bound(10.0, "Longest time of a request in seconds, whatever its own deadline.", 0.001, 3600)
    max_k: int = _bound(1000, "Largest k.", 1, 100_000)
    max_batch: int = _bound(1000, "Requests in a batch.", 1, 100_000)
    max_batch_cost: int = _bound(
        1_000_000,
        "Work of a batch: k + offset of every entry, ten times that with diversity or popularity_discount; a unit takes"
        " about a microsecond.",
        1,
        1_000_000_000,
    )
    max_stream: int = _bound(
        100_000, "Requests in a streamed batch; --max-message-bytes bounds them too.", 1, 10_000_000
    )
    max_message_bytes: int = _bound(1 << 20, "Largest request message.", 1024, 1 << 30)
    max_connection_age: float = _bound(
        0.0, "Ask callers to connect anew after so many seconds, so that they spread over servers. 0: never.", 0
    )
    max_concurrent_streams: int = _bound(
        64,
        "Requests in flight on one connection; a client holds back more. Each may hold 8 KiB of headers, which take ten"
        " times as much in memory.",
        1,
        1_000_000,
    )
    default_k: int = 10
    max_offset: int = 10_000
    max_history: int = 1000
    max_exclude: int = 10_000
    max_allow: int = 10_000
    max_categories: int = 100
    max_id_bytes: int = 512
    max_stream_deadline: float = 300.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "default_k", min(self.default_k, self.max_k))

    def check_query(self, query: Query) -> None:
        """Refuse a question that breaks a bound.

        Raises:
            InvalidRequest: Naming every field that does.
        """
        wrong = [*self._shared(query), *self._reranking(query)]
        if query.recent:
            wrong += self._ids("recent_item_ids", query.recent, self.max_history)
        if query.user_id is not None:
            wrong += self._ids("user_id", (query.user_id,), 1)
            if not query.user_id:
                wrong.append(FieldViolation("user_id", "is empty; send a user id or a history"))
        else:
            wrong += self._ids("history.item_ids", query.history, self.max_history)
            if query.recent:
                wrong.append(FieldViolation("recent_item_ids", "goes with user_id; put them into the history"))
        if wrong:
            raise InvalidRequest(*wrong)

    def check_similar(self, query: SimilarQuery) -> None:
        """Refuse an item-to-item question that breaks a bound.

        Raises:
            InvalidRequest: Naming every field that does.
        """
        wrong = [*self._shared(query), *self._ids("item_id", (query.item_id,), 1)]
        if not query.item_id:
            wrong.append(FieldViolation("item_id", "is empty; send the item to start from"))
        if wrong:
            raise InvalidRequest(*wrong)

    def check_batch(self, size: int) -> None:
        """Refuse a batch that is empty or too large.

        Raises:
            InvalidRequest: Naming the bound.
        """
        _check_size(size, self.max_batch)

    def check_cost(self, queries: Sequence[Query]) -> None:
        """Refuse a batch that would take too much work.

        Raises:
            InvalidRequest: Naming what to lower.
        """
        cost = sum((query.k + query.offset) * (RERANKED_PLACE if query.reranks else 1) for query in queries)
        if cost > self.max_batch_cost:
            fit = max(1, self.max_batch_cost * len(queries) // cost)
            text = (
                f"cost {cost:,} together (k + offset of each, times {RERANKED_PLACE} with diversity or"
                f" popularity_discount), at most {self.max_batch_cost:,}: lower k, or send {fit} at once"
            )
            raise InvalidRequest(FieldViolation("requests", text))

    def check_selection(self, **names: str) -> None:
        """Refuse a model selector whose name, version or label is too long.

        Raises:
            InvalidRequest: Naming every one that is.
        """
        long = [name for name, text in names.items() if self._is_long(text)]
        if long:
            text = f"is longer than {self.max_id_bytes} bytes"
            raise InvalidRequest(*(FieldViolation(f"model.{name}", text) for name in long))

    def check_stream(self, size: int) -> None:
        """Refuse a streamed batch that is empty or too large.

        Raises:
            InvalidRequest: Naming the bound.
        """
        _check_size(size, self.max_stream)

    def _reranking(self, query: Query) -> Iterator[FieldViolation]:
        if not 0 <= query.diversity <= 1:
            yield FieldViolation("diversity", f"is {query.diversity:g}; send between 0 and 1")
        if not 0 <= query.popularity_discount <= MAX_DISCOUNT:
            text = f"is {query.popularity_discount:g}; send between 0 and {MAX_DISCOUNT:g}"
            yield FieldViolation("popularity_discount", text)
        if query.reranks and query.k + query.offset > RERANKED:
            text = (
                f"with offset makes {query.k + query.offset}; at most {RERANKED} with diversity or popularity_discount"
            )
            yield FieldViolation("k", text)

    def _shared(self, query: Query | SimilarQuery) -> Iterator[FieldViolation]:
        if not 1 <= query.k <= self.max_k:
            yield FieldViolation("k", f"is {query.k}; send at most {self.max_k}, or 0 for {self.default_k}")
        if not 0 <= query.offset <= self.max_offset:
            yield FieldViolation("offset", f"is {query.offset}; send at most {self.max_offset}")
        if query.min_score is not None and math.isnan(query.min_score):
            yield FieldViolation("min_score", "is not a number; leave it out for no bound")
        if query.exclude_item_ids:
            yield from self._ids("exclude_item_ids", query.exclude_item_ids, self.max_exclude)
        if query.allow_item_ids:
            yield from self._ids("allow_item_ids", query.allow_item_ids, self.max_allow)
        if query.allow_categories:
            yield from self._ids("allow_categories", query.allow_categories, self.max_categories)

    def _ids(self, name: str, ids: Sequence[str], most: int) -> Iterator[FieldViolation]:
        if len(ids) > most:
            yield FieldViolation(name, f"has {len(ids)} entries; send at most {most}")
        elif any(map(self._is_long, ids)):
            yield FieldViolation(name, f"holds an id longer than {self.max_id_bytes} bytes")

    def _is_long(self, text: str) -> bool:
        return len(text) * 4 > self.max_id_bytes and len(text.encode()) > self.max_id_bytes


def _check_size(size: int, most: int) -> None:
    if not 1 <= size <= most:
        raise InvalidRequest(FieldViolation("requests", f"has {size} entries; send between 1 and {most}"))
