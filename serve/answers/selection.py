"""Which items may be answered, and in which order: masks, cuts and reranking by row number; no scores come from here.

Reranking shows less of the same (`diversify`) and less of what is popular anyway (`relevance_of`). Both work on a pool
of the best `RERANKED` eligible items, whatever k is, so that pages of one list never overlap.

References:
    Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries", SIGIR 1998.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np
import numpy.typing as npt

from serve.answers.errors import FieldViolation, InvalidRequest, shown
from serve.answers.ports import Catalogue
from serve.answers.types import Rows, Scores, Shortfall

NO_ROWS: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
Relevance = npt.NDArray[np.float32]


class Selection:
    """Row sets of one catalogue of N items. Immutable.

    Args:
        catalogue: Users and items.

    Attributes:
        popularity_shares: 1 for the most popular item, 0 for the least, evenly between, shape (N,).
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._num_items = len(catalogue.item_ids)
        self._popularity = np.asarray(catalogue.popularity)
        counts = np.bincount(catalogue.seen_indices, minlength=self._num_items)
        self._popularity_scores: Scores = counts.astype(np.float32)
        shares = 1 - np.arange(self._num_items, dtype=np.float32) / max(self._num_items - 1, 1)
        self.popularity_shares: Scores = np.empty(self._num_items, dtype=np.float32)
        self.popularity_shares[self._popularity] = shares
        self._category_rows = {name: row for row, name in enumerate(catalogue.category_names)}
        self._category_indptr, self._category_items = _items_by_category(catalogue)

    def seen(self, user_index: int) -> Rows:
        """Items the user already has, shape (n,)."""
        indptr = self._catalogue.seen_indptr
        return self._catalogue.seen_indices[indptr[user_index] : indptr[user_index + 1]]

    def rows_of(self, item_ids: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Distinct rows of the known ids, in order of first mention, and the distinct unknown ids."""
        distinct = list(dict.fromkeys(item_ids))
        rows = self._catalogue.item_ids.index_many(distinct)
        known = rows >= 0
        if known.all():
            return rows, []
        return rows[known], [distinct[number] for number in np.flatnonzero(~known)]

    def blocked(self, seen: Rows, exclude_item_ids: Sequence[str]) -> Rows:
        """Rows never to answer with, shape (n,), possibly repeated; unknown ids are dropped."""
        if not exclude_item_ids:
            return seen
        excluded = self._catalogue.item_ids.index_many(exclude_item_ids)
        return np.concatenate([seen, excluded[excluded >= 0]])

    def allowed(
        self, item_ids: Sequence[str], categories: Sequence[str]
    ) -> tuple[npt.NDArray[np.int64] | None, list[str]]:
        """The only rows to answer with.

        Args:
            item_ids: Outside ids; empty for all.
            categories: Category names; empty for all.

        Returns:
            Distinct rows in rising order, or None when all are allowed; and the distinct unknown ids.

        Raises:
            InvalidRequest: A category is not in the catalogue.
        """
        allowed: npt.NDArray[np.int64] | None = None
        unknown: list[str] = []
        if item_ids:
            rows, unknown = self.rows_of(item_ids)
            allowed = np.sort(rows)
        if categories:
            inside = self._in_categories(categories)
            allowed = inside if allowed is None else np.intersect1d(allowed, inside, assume_unique=True)
        return allowed, unknown

    def popular(self, wanted: int, blocked: Rows, allowed: Rows | None) -> tuple[npt.NDArray[np.int64], Scores]:
        """The most popular items that may be answered, and the number of users who have them.

        Args:
            wanted: How many at most.
            blocked: Rows never to answer with.
            allowed: The only rows to answer with; None for all.

        Returns:
            Rows and scores of shape (n,), n ≤ wanted, most popular first.
        """
        if allowed is None:
            rows = self.without(self._popularity[: wanted + len(blocked)], blocked)
        else:
            inside = np.zeros(self._num_items, dtype=bool)
            inside[allowed] = True
            inside[blocked] = False
            rows = self._popularity[inside[self._popularity]]
        best: npt.NDArray[np.int64] = rows[:wanted].astype(np.int64)
        return best, self._popularity_scores[best]

    def without(self, rows: Rows, blocked: Rows) -> Rows:
        """`rows` without the blocked ones, in the same order."""
        return rows if len(blocked) == 0 else rows[self.free(rows, blocked)]

    def free(self, rows: Rows, blocked: Rows) -> npt.NDArray[np.bool_]:
        """Which of `rows` are not blocked, shape (n,)."""
        # Zeroed pages are only touched where they are written or read, so this is cheap for any N.
        taken = np.zeros(self._num_items, dtype=bool)
        taken[blocked] = True
        return ~taken[rows]

    def _in_categories(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        unknown = [name for name in names if name not in self._category_rows]
        if unknown:
            known = ", ".join(shown(name) for name in self._catalogue.category_names[:5]) or "none at all"
            text = f"unknown category {shown(unknown[0])}; the model knows {known}"
            raise InvalidRequest(FieldViolation("allow_categories", text))
        indptr = self._category_indptr
        parts = [
            self._category_items[indptr[row] : indptr[row + 1]] for row in {self._category_rows[name] for name in names}
        ]
        return np.unique(np.concatenate(parts)).astype(np.int64)


def walk(rows: Rows, scores: Scores, blocked: Rows) -> tuple[list[int], list[float]]:
    """What is left of a short ranking: as `Selection.without`, in plain Python, which for tens of rows costs less.

    Args:
        rows: As an index found them, -1 for none, shape (n,).
        scores: Their scores, falling, shape (n,).
        blocked: Rows to leave out.

    Returns:
        Rows and scores, best first, equal scores in the order of rows.
    """
    taken = {-1, *blocked.tolist()}
    found, left = rows.tolist(), scores.tolist()
    if not taken.isdisjoint(found):
        is_free = [row not in taken for row in found]
        found, left = list(compress(found, is_free)), list(compress(left, is_free))
    if len(set(left)) < len(left):
        pairs = sorted(zip(left, found, strict=True), key=lambda pair: (-pair[0], pair[1]))
        found, left = [row for _, row in pairs], [score for score, _ in pairs]
    return found, left


def first_good(scores: Scores | list[float], min_score: float | None) -> int:
    """How many scores reach the bound; all where there is none."""
    return len(scores) if min_score is None else int(np.count_nonzero(np.asarray(scores) >= min_score))


def cut(
    rows: Rows | list[int], scores: Scores | list[float], *, offset: int, k: int, min_score: float | None
) -> tuple[list[int], list[float], Shortfall]:
    """The part of a ranking that answers, and why it is shorter than k.

    Args:
        rows: All eligible rows, or at least the best offset + k of them; best first.
        scores: Their scores, falling.
        offset: How many to skip.
        k: How many to keep.
        min_score: Leave out what scores less.

    Returns:
        Rows, scores, and the reason for a shortfall.
    """
    good = first_good(scores, min_score)
    shortfall = Shortfall.BELOW_MIN_SCORE if good < len(rows) else Shortfall.EXHAUSTED
    part = slice(offset, min(good, offset + k))
    rows, scores = rows[part], scores[part]
    kept = rows if isinstance(rows, list) else rows.tolist()
    return (
        kept,
        scores if isinstance(scores, list) else scores.tolist(),
        Shortfall.NONE if len(kept) == k else shortfall,
    )


def _items_by_category(catalogue: Catalogue) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    if catalogue.category_indptr is None or catalogue.category_indices is None:
        return np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32)
    indptr = catalogue.category_indptr.astype(np.int64)
    sizes = indptr[1:] - indptr[:-1]
    items = np.repeat(np.arange(len(catalogue.item_ids), dtype=np.int32), sizes)
    order = np.argsort(catalogue.category_indices, kind="stable")
    counts = np.bincount(catalogue.category_indices, minlength=len(catalogue.category_names))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), items[order]


def relevance_of(scores: Scores, popularity: Relevance, discount: float) -> Relevance:
    """Scores scaled to [0, 1] over the pool, less a share of each item's popularity.

    Args:
        scores: Of the pool, shape (n,).
        popularity: Of its items, 1 for the most popular of the catalogue and 0 for the least, shape (n,).
        discount: γ ≥ 0; with 1, the best score weighs as much as the highest popularity.

    Returns:
        float32 of shape (n,).
    """
    spread = float(scores.max() - scores.min()) if len(scores) else 0.0
    scaled = (scores - scores.min()) / spread if spread > 0 else np.zeros_like(scores)
    relevance: Relevance = (scaled - discount * popularity).astype(np.float32)
    return relevance


def diversify(
    relevance: Relevance, vectors: npt.NDArray[np.float32], diversity: float, wanted: int
) -> npt.NDArray[np.int64]:
    """An order by maximal marginal relevance: next is argmax (1 − λ) rel(i) − λ max over those chosen of sim(i, j).

    Args:
        relevance: Of the pool, shape (n,).
        vectors: Of unit length, so that an inner product is a similarity, shape (n, d); not read where λ is 0.
        diversity: λ in [0, 1]; 0 sorts by relevance.
        wanted: How many places to choose; the others follow by relevance.

    Returns:
        A permutation of the places, int64 of shape (n,); equal values by rising place.
    """
    by_relevance = np.argsort(-relevance, kind="stable")
    if diversity == 0 or len(relevance) < 2:
        return by_relevance
    merit = (1 - diversity) * relevance
    nearest, near, gain = np.zeros_like(merit), np.empty_like(merit), np.empty_like(merit)
    chosen: list[int] = []
    for _ in range(min(wanted, len(relevance))):
        np.multiply(nearest, -diversity, out=gain)
        gain += merit
        place = int(gain.argmax())
        # A row at a time: all of them at once would win only where most of the pool is wanted.
        np.dot(vectors, vectors[place], out=near)
        nearest = np.maximum(nearest, near, out=nearest) if chosen else near.copy()
        merit[place] = -np.inf
        chosen.append(place)
    left = np.ones(len(relevance), dtype=bool)
    left[chosen] = False
    return np.concatenate([np.array(chosen, dtype=np.int64), by_relevance[left[by_relevance]]])


def reorder(rows: Rows, scores: Scores, order: npt.NDArray[np.int64]) -> tuple[Rows, Scores]:
    """The first len(order) places in another order, the rest as they are."""
    rest = np.arange(len(order), len(rows))
    places = np.concatenate([order, rest])
    return rows[places], scores[places]
