"""A recommender with an answer table answers like one without: the table may only be quicker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.build.answer_table import add_answers
from export.build.quality import as_csr
from export.bundle import ExactIndex
from export.bundle.repository import ModelRepository
from serve.answers.fake import FakeFoldIn
from serve.answers.recommender import AnswerTable, Recommender
from serve.answers.types import Answers, Query, Recommendation
from serve.live.loader import load_model
from tests.serve.answers.test_recommender import item_ids, make, queries
from tests.serve.answers.toy_catalogue import ITEMS, USERS, PoorIndex, integer_catalogue
from tests.serve.repositories import contents, publish


class Watched(AnswerTable):
    """Counts the answers it gives."""

    given = 0

    def look_up(self, *question: Any) -> Any:
        ready = super().look_up(*question)
        self.given += ready is not None
        return ready


def table(length: int, *, wrong: bool = False) -> Watched:
    """The exact table of the integer catalogue; a wrong one says that every user likes the worst best."""
    catalogue, items = integer_catalogue()
    rows = np.full((USERS, length), -1, dtype=np.int32)
    scores = np.zeros((USERS, length), dtype=np.float32)
    for user in range(USERS):
        values = items @ catalogue.user_embeddings[user]
        seen = catalogue.seen_indices[catalogue.seen_indptr[user] : catalogue.seen_indptr[user + 1]]
        left = np.setdiff1d(np.arange(ITEMS), seen)
        best = left[np.argsort(values[left] if wrong else -values[left], kind="stable")][:length]
        rows[user, : len(best)], scores[user, : len(best)] = best, values[best]
    return Watched(rows, scores, ITEMS)


def with_table(answers: AnswerTable) -> Recommender:
    catalogue, items = integer_catalogue()
    exact = ExactIndex(items)
    cosine = ExactIndex.by_cosine(items)
    index = PoorIndex(items)
    return Recommender(
        "toy", catalogue, index=index, exact=exact, cosine=cosine, fold_in=FakeFoldIn(items), answers=answers
    )


def shown(answers: Answers) -> list[tuple[Any, ...]]:
    outcomes = [outcome for outcome in answers.outcomes if isinstance(outcome, Recommendation)]
    assert len(outcomes) == len(answers.outcomes)
    return [(each.item_ids, each.scores, each.shortfall, each.source) for each in outcomes]


plain = st.builds(
    lambda user, **fields: Query(f"u-{user}", **fields),
    st.integers(0, USERS - 1),
    k=st.integers(1, 40),
    offset=st.integers(0, 12),
    exclude_item_ids=st.lists(item_ids, max_size=8),
    min_score=st.none() | st.integers(-6, 6).map(float),
    include_titles=st.booleans(),
)


@given(batch=st.lists(plain, min_size=1, max_size=4))
@settings(deadline=None, max_examples=150)
def test_plain_questions_have_the_exact_answer_row_for_row(batch: list[Query]) -> None:
    exact = make().recommend([replace(query, exact=True) for query in batch])
    whole = table(ITEMS)
    assert shown(with_table(whole).recommend(batch)) == shown(exact)
    assert whole.given == len(batch)


@given(query=plain, length=st.integers(1, 30))
@settings(deadline=None, max_examples=150)
def test_a_table_that_does_not_reach_is_not_used(query: Query, length: int) -> None:
    catalogue, _ = integer_catalogue()
    ready = table(length)
    (answer,) = shown(with_table(ready).recommend([query]))
    (exact,) = shown(make().recommend([replace(query, exact=True)]))
    user = int((query.user_id or "").removeprefix("u-"))
    seen = catalogue.seen_indptr[user + 1] - catalogue.seen_indptr[user]
    if ready.given:
        assert answer == exact
    else:
        # What it asks instead finds no less than there is.
        assert ready._rows[user, -1] >= 0
        assert query.min_score is not None or len(answer[0]) == len(exact[0])
        assert query.k + query.offset + len(query.exclude_item_ids) > length
        assert seen + length <= ITEMS


@given(query=queries)
@settings(deadline=None, max_examples=100)
def test_any_other_question_is_answered_as_ever(query: Query) -> None:
    restricted = query.allow_item_ids or query.allow_categories
    is_plain = query.user_id is not None and not (query.include_seen or restricted or query.exact)
    ready = table(ITEMS)
    answer = with_table(ready).recommend([query])
    assert bool(ready.given) == is_plain
    if is_plain or query.exact or restricted:
        assert shown(answer) == shown(make().recommend([query]))


@pytest.mark.parametrize(
    "fields",
    [
        {"include_seen": True},
        {"exact": True},
        {"recent": ["i-1"]},
        {"diversity": 0.5},
        {"popularity_discount": 0.5},
        {"allow_item_ids": ["i-1", "i-2"]},
        {"allow_categories": ["a"]},
        {"user_id": None, "history": ["i-1"]},
        {"user_id": "nobody", "allow_fallback": True},
    ],
)
def test_what_is_not_plain_never_sees_the_table(fields: dict[str, Any]) -> None:
    lies = table(ITEMS, wrong=True)
    recommender = with_table(lies)
    query = Query(**{"user_id": "u-0", "k": 3, **fields})
    assert shown(recommender.recommend([query])) == shown(make("poor").recommend([query]))
    assert lies.given == 0
    recommender.recommend([Query("u-0", k=3)])
    assert lies.given == 1


def test_a_bundle_with_a_table_is_served_from_it(tmp_path: Path) -> None:
    made = contents()
    seen = as_csr(made.seen_indptr, made.seen_indices, len(made.item_ids))
    path = publish(tmp_path, factory="Flat", made=add_answers(made, seen, 50))
    recommender = load_model("student", path).recommender
    assert recommender.answers is not None
    assert recommender.answers.length == 50
    for number in (0, 17, 59):
        query = Query(f"u{number}", k=10, offset=5, exclude_item_ids=["i3", "i4"])
        ready, exact = (shown(recommender.recommend([q]))[0] for q in (query, replace(query, exact=True)))
        assert (ready[0], ready[2:]) == (exact[0], exact[2:])
        np.testing.assert_allclose(ready[1], exact[1], rtol=1e-5)


def test_a_bundle_without_a_table_has_none(repository: ModelRepository) -> None:
    assert load_model("student", repository.resolve("student")).recommender.answers is None
