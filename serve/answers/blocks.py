"""Many questions, a block at a time: a caller who leaves is seen soon, and a defect stays with its question."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serve.answers.admission import Deadline
from serve.answers.errors import RequestError
from serve.answers.recommender import Recommender, go_on
from serve.answers.types import Answers, Query

BLOCK = 256
"""Questions answered together: of fewer, searches would share less; of more, one defect would cost more."""


def answer_in_blocks(
    recommender: Recommender,
    queries: Sequence[Query],
    check: Callable[[], None] = go_on,
    deadline: Deadline | None = None,
) -> Answers:
    """Answer questions a block after the other.

    Args:
        queries: Already checked against the server's limits.
        check: Raises a `RequestError` once no answer is wanted any more; called often.
        deadline: Of whoever waits; None for no bound.

    Returns:
        One outcome per question, a defect among them where one was met, and where the time went.
    """
    whole = Answers([], 0, 0, 0)
    for first in range(0, len(queries), BLOCK):
        check()
        for part in _answer(recommender, queries[first : first + BLOCK], check, deadline):
            whole.outcomes += part.outcomes
            whole.encode_ns += part.encode_ns
            whole.search_ns += part.search_ns
            whole.filter_ns += part.filter_ns
    return whole


def _answer(
    recommender: Recommender, queries: Sequence[Query], check: Callable[[], None], deadline: Deadline | None
) -> list[Answers]:
    try:
        return [recommender.recommend(queries, check, deadline)]
    except RequestError:
        raise
    except Exception as defect:
        if len(queries) == 1:
            return [Answers([defect], 0, 0, 0)]
    # By halves, what one question spoils is found in a few more searches.
    middle = len(queries) // 2
    first, rest = queries[:middle], queries[middle:]
    return _answer(recommender, first, check, deadline) + _answer(recommender, rest, check, deadline)
