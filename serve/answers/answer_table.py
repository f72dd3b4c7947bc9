"""Ready answers: the best items that each known user does not have, ranked exactly when the bundle was made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serve.answers.types import Query, Rows, Scores, SimilarQuery


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
