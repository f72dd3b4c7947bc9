from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serve.answers.blocks import BLOCK, answer_in_blocks
from serve.answers.errors import CallerLeft, UnknownUser
from serve.answers.types import Query, Recommendation
from tests.kits.broken_index import broken_recommender

USERS = 3 * BLOCK


class Leaving:
    """Somebody who waits for so many looks, and then no longer."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise CallerLeft("gone")


def test_blocks_answer_as_one_batch_does() -> None:
    made, index = broken_recommender(USERS)
    queries = [Query(f"user-{user}", k=1 + user % 7, diversity=0.5 * (user % 2)) for user in range(USERS)]
    queries[70] = Query("nobody")
    whole, parts = made.recommend(queries), answer_in_blocks(made, queries)
    assert index.searches >= 3
    assert [getattr(one, "item_ids", type(one)) for one in parts.outcomes] == [
        getattr(one, "item_ids", type(one)) for one in whole.outcomes
    ]
    assert isinstance(parts.outcomes[70], UnknownUser)
    assert min(parts.encode_ns, parts.search_ns, parts.filter_ns) > 0


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_nothing_is_searched_for_a_caller_who_left(looks: int) -> None:
    made, index = broken_recommender(USERS)
    with pytest.raises(CallerLeft):
        answer_in_blocks(made, [Query(f"user-{user}") for user in range(USERS)], Leaving(looks))
    assert index.searches == looks


def test_a_caller_who_leaves_is_seen_between_two_rerankings(monkeypatch: pytest.MonkeyPatch) -> None:
    made, index = broken_recommender(USERS)
    reranked: list[int] = []
    real = made._cosine.item_vectors

    def count(rows: Any) -> Any:
        reranked.append(len(rows))
        return real(rows)

    monkeypatch.setattr(made._cosine, "item_vectors", count)
    queries = [Query(f"user-{user}", diversity=0.5) for user in range(USERS)]
    with pytest.raises(CallerLeft):
        answer_in_blocks(made, queries, Leaving(1 + 5))
    assert (index.searches, len(reranked)) == (1, 5)


def test_a_caller_who_leaves_is_seen_between_scans_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    made, index = broken_recommender(USERS)
    monkeypatch.setattr("serve.answers.recommender.SCORED_AT_ONCE", 4 * 400)
    with pytest.raises(CallerLeft):
        answer_in_blocks(made, [Query(f"user-{user}") for user in range(BLOCK)], Leaving(3))
    assert index.searches == 3
    assert len(answer_in_blocks(made, [Query(f"user-{user}") for user in range(BLOCK)]).outcomes) == BLOCK


@pytest.mark.parametrize("bad", [(0,), (7, 100), tuple(range(USERS))])
def test_a_defect_stays_with_its_question(bad: tuple[int, ...]) -> None:
    made, index = broken_recommender(USERS, bad)
    outcomes = answer_in_blocks(made, [Query(f"user-{user}", k=3) for user in range(USERS)]).outcomes
    failed = [place for place, outcome in enumerate(outcomes) if not isinstance(outcome, Recommendation)]
    assert failed == list(bad)
    assert all(isinstance(outcomes[place], IndexError) for place in bad)
    assert index.searches <= 3 + 2 * int(np.log2(BLOCK)) * len(bad)
