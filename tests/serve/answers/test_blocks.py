from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serve.answers.blocks import answer_in_blocks
from serve.answers.errors import CallerLeft, UnknownUser
from serve.answers.types import Query, Recommendation
from tests.kits.broken_index import broken_recommender

BLOCK = 64
USERS = 3 * BLOCK


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.answers.blocks.BLOCK", BLOCK)


def until(has_left: Callable[[], bool]) -> Callable[[], None]:
    """A look that somebody has left."""

    def check() -> None:
        if has_left():
            raise CallerLeft("gone")

    return check


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


@pytest.mark.parametrize("searches", [0, 1, 2])
def test_nothing_is_searched_for_a_caller_who_left(searches: int) -> None:
    made, index = broken_recommender(USERS)
    with pytest.raises(CallerLeft):
        answer_in_blocks(
            made, [Query(f"user-{user}") for user in range(USERS)], until(lambda: index.searches >= searches)
        )
    assert index.searches == searches


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
        answer_in_blocks(made, queries, until(lambda: len(reranked) >= 5))
    assert (index.searches, len(reranked)) == (1, 5)


def test_a_caller_who_leaves_is_seen_between_plain_answers() -> None:
    made, index = broken_recommender(USERS)
    looks: list[int] = []

    def count() -> None:
        looks.append(index.searches)

    answer_in_blocks(made, [Query(f"user-{user}") for user in range(USERS)], count)
    assert len([one for one in looks if one == 1]) == BLOCK // 16 + 1


def test_a_caller_who_leaves_is_seen_between_scans_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    made, index = broken_recommender(USERS)
    monkeypatch.setattr("serve.answers.recommender.SCORED_AT_ONCE", 4 * made._num_items)
    with pytest.raises(CallerLeft):
        answer_in_blocks(made, [Query(f"user-{user}") for user in range(BLOCK)], until(lambda: index.searches >= 3))
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
