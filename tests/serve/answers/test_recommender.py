from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import ExactIndex
from serve.answers.errors import FoldInUnavailable, InvalidRequest, UnknownHistory, UnknownItem, UnknownUser
from serve.answers.fake import FakeFoldIn, fake_catalogue, fake_model
from serve.answers.recommender import Recommender
from serve.answers.types import Query, Recommendation, Shortfall, SimilarQuery, Source
from tests.serve.answers.toy_catalogue import ITEMS, USERS, PoorIndex, integer_catalogue


def make(index: str = "exact", **options: Any) -> Recommender:
    catalogue, items = integer_catalogue()
    exact = ExactIndex(items)
    return Recommender(
        "toy",
        catalogue,
        index=PoorIndex(items) if index == "poor" else exact,
        exact=exact,
        cosine=ExactIndex.by_cosine(items),
        fold_in=FakeFoldIn(items),
        **options,
    )


def only(recommender: Recommender, query: Query) -> Recommendation:
    (outcome,) = recommender.recommend([query]).outcomes
    assert isinstance(outcome, Recommendation), outcome
    return outcome


def oracle(query: Query) -> tuple[list[str], list[float], Shortfall, Source]:
    """The answer by sorting everything in plain Python."""
    catalogue, items = integer_catalogue()
    if query.user_id is not None:
        user = int(query.user_id.removeprefix("u-"))
        vector = catalogue.user_embeddings[user]
        has = set(catalogue.seen_indices[catalogue.seen_indptr[user] : catalogue.seen_indptr[user + 1]].tolist())
    else:
        rows = list(dict.fromkeys(int(item.removeprefix("i-")) for item in query.history))
        vector, has = items[rows].mean(axis=0), set(rows)
    eligible = []
    for row in range(ITEMS):
        item_id, category = f"i-{row}", "ab"[row % 2]
        if (row in has and not query.include_seen) or item_id in query.exclude_item_ids:
            continue
        if query.allow_item_ids and item_id not in query.allow_item_ids:
            continue
        if query.allow_categories and category not in query.allow_categories:
            continue
        eligible.append((-float(np.float32(items[row] @ vector)), row))
    eligible.sort()
    good = [pair for pair in eligible if query.min_score is None or -pair[0] >= query.min_score]
    answer = good[query.offset : query.offset + query.k]
    shortfall = Shortfall.EXHAUSTED if len(good) == len(eligible) else Shortfall.BELOW_MIN_SCORE
    return (
        [f"i-{row}" for _, row in answer],
        [-score for score, _ in answer],
        Shortfall.NONE if len(answer) == query.k else shortfall,
        Source.PERSONAL if query.user_id is not None else Source.FOLD_IN,
    )


item_ids = st.integers(0, ITEMS - 1).map("i-{}".format)
# Histories of a power of two of distinct items: their mean is exact in float32, so ties stay ties.
# None has mean 0: such a history is answered by popularity, which has a test of its own.
histories = (
    st.sampled_from([1, 2, 4])
    .flatmap(lambda n: st.lists(item_ids, min_size=n, max_size=n, unique=True))
    .filter(lambda ids: integer_catalogue()[1][[int(item.removeprefix("i-")) for item in ids]].mean(axis=0).any())
)
subjects = st.one_of(
    st.builds(lambda user: {"user_id": f"u-{user}"}, st.integers(0, USERS - 1)),
    st.builds(lambda history: {"history": history}, histories),
)
queries = st.builds(
    lambda subject, **fields: Query(**subject, **fields),
    subjects,
    k=st.integers(1, 40),
    include_seen=st.booleans(),
    exclude_item_ids=st.lists(item_ids, max_size=8),
    allow_item_ids=st.lists(item_ids, max_size=8),
    allow_categories=st.lists(st.sampled_from(["a", "b", "empty"]), max_size=2),
    min_score=st.none() | st.integers(-6, 6).map(float),
    offset=st.integers(0, 12),
    exact=st.booleans(),
)


@given(query=queries)
@settings(deadline=None, max_examples=150)
def test_one_query_equals_the_oracle(query: Query) -> None:
    answer = only(make(), query)
    assert (answer.item_ids, answer.scores, answer.shortfall, answer.source) == oracle(query)


@given(batch=st.lists(queries, min_size=1, max_size=12))
@settings(deadline=None, max_examples=50)
def test_a_batch_equals_its_queries(batch: list[Query]) -> None:
    for query, outcome in zip(batch, make().recommend(batch).outcomes, strict=True):
        assert isinstance(outcome, Recommendation)
        assert (outcome.item_ids, outcome.scores, outcome.shortfall, outcome.source) == oracle(query)


@given(query=queries)
@settings(deadline=None, max_examples=50)
def test_a_poor_index_never_shortens_an_answer(query: Query) -> None:
    answer, (expected, _, shortfall, _) = only(make("poor"), query), oracle(query)
    assert len(set(answer.item_ids)) == len(answer.item_ids)
    if query.exact or query.allow_item_ids or query.allow_categories:
        assert answer.item_ids == expected
    elif query.min_score is None:
        assert len(answer.item_ids) == len(expected)
        assert answer.shortfall == shortfall
    assert sorted(answer.scores, reverse=True) == answer.scores


def test_asks_for_no_more_than_could_be_masked() -> None:
    recommender = make("poor")
    index = recommender._index
    assert isinstance(index, PoorIndex)
    catalogue = recommender.catalogue
    seen = int(catalogue.seen_indptr[1] - catalogue.seen_indptr[0])
    recommender.recommend([Query("u-0", k=3, offset=1, exclude_item_ids=["i-1", "nothing"])])
    assert index.asked == [3 + 1 + seen + 1]


def test_scores_every_item_where_over_fetching_costs_more() -> None:
    recommender = make("poor", max_over_fetch=4)
    index = recommender._index
    assert isinstance(index, PoorIndex)
    query = Query("u-0", k=5)
    assert only(recommender, query).item_ids == oracle(query)[0]
    assert index.asked == []


def test_like_sized_requests_of_a_batch_share_a_search() -> None:
    recommender = make("poor")
    index = recommender._index
    assert isinstance(index, PoorIndex)
    recommender.recommend([Query(f"u-{user}", k=1 + user % 6, include_seen=True) for user in range(USERS)])
    assert index.asked == [min(16, index.num_items)]


def test_an_unknown_user_is_an_error_or_popular() -> None:
    recommender = make()
    (outcome,) = recommender.recommend([Query("nobody")]).outcomes
    assert isinstance(outcome, UnknownUser)
    answer = only(recommender, Query("nobody", k=4, allow_fallback=True, min_score=1e9, exclude_item_ids=["i-0"]))
    catalogue, _ = integer_catalogue()
    popular = [row for row in catalogue.popularity.tolist() if row != 0][:4]
    assert answer.item_ids == [f"i-{row}" for row in popular]
    assert answer.scores == [(catalogue.seen_indices == row).sum() for row in popular]
    assert (answer.source, answer.shortfall) == (Source.POPULAR, Shortfall.NONE)


@pytest.mark.parametrize("allow_fallback", [False, True])
def test_a_user_without_a_direction_is_answered_by_popularity_and_told_so(*, allow_fallback: bool) -> None:
    recommender = make()
    catalogue = recommender.catalogue
    catalogue.user_embeddings[2] = 0
    answer = only(recommender, Query("u-2", k=4, min_score=1e9, allow_fallback=allow_fallback))
    has = catalogue.seen_indices[catalogue.seen_indptr[2] : catalogue.seen_indptr[3]].tolist()
    popular = [row for row in catalogue.popularity.tolist() if row not in has][:4]
    assert (answer.source, answer.item_ids) == (Source.POPULAR, [f"i-{row}" for row in popular])
    assert only(recommender, Query("u-2", recent=["i-1"], k=4)).source is Source.POPULAR
    assert isinstance(recommender._fold_in, FakeFoldIn)
    recommender._fold_in._items[1] = 0
    assert only(recommender, Query(history=["i-1"], k=4)).source is Source.POPULAR
    assert only(recommender, Query(history=["i-2"], k=4)).source is Source.FOLD_IN
    assert only(recommender, Query("u-1", k=4)).source is Source.PERSONAL


def test_popular_answers_keep_to_the_allow_list_in_order_of_popularity() -> None:
    allowed = ["i-3", "i-20", "i-11", "i-4"]
    answer = only(make(), Query("nobody", k=9, allow_fallback=True, allow_item_ids=allowed))
    catalogue, _ = integer_catalogue()
    expected = [f"i-{row}" for row in catalogue.popularity.tolist() if f"i-{row}" in allowed]
    assert (answer.item_ids, answer.shortfall) == (expected, Shortfall.EXHAUSTED)


def test_unknown_items_are_reported_once_and_left_out() -> None:
    answer = only(make(), Query(history=["x", "i-1", "x", "y"], allow_item_ids=["i-2", "y", "z"], k=2))
    assert answer.item_ids == ["i-2"]
    assert answer.unknown_item_ids == ["x", "y", "z"]


def test_a_history_without_a_known_item_is_cold() -> None:
    (outcome,) = make().recommend([Query(history=["x", "y"])]).outcomes
    assert isinstance(outcome, UnknownHistory)
    answer = only(make(), Query(history=["x"], allow_fallback=True))
    assert (answer.source, answer.unknown_item_ids) == (Source.POPULAR, ["x"])


def test_a_repeated_history_item_counts_once() -> None:
    once, twice = (only(make(), Query(history=history)) for history in (["i-1", "i-2"], ["i-1", "i-2", "i-1"]))
    assert once.item_ids == twice.item_ids


def test_without_a_fold_in_graph_histories_are_refused_or_popular() -> None:
    catalogue, items = fake_catalogue()
    exact = ExactIndex(items)
    recommender = Recommender("bare", catalogue, index=exact, exact=exact, cosine=exact)
    (outcome,) = recommender.recommend([Query(history=["item-1"])]).outcomes
    assert isinstance(outcome, FoldInUnavailable)
    answer = only(recommender, Query(history=["item-50"], k=3, allow_fallback=True))
    assert answer.item_ids == ["item-51", "item-52", "item-53"]


def test_an_unknown_category_is_named() -> None:
    (outcome,) = make().recommend([Query("u-0", allow_categories=["a", "c"])]).outcomes
    assert isinstance(outcome, InvalidRequest)
    assert outcome.violations[0].field == "allow_categories"
    assert "'c'" in str(outcome)


def test_a_known_category_without_items_is_an_empty_answer() -> None:
    answer = only(make(), Query("u-0", allow_categories=["empty"]))
    assert (answer.item_ids, answer.shortfall) == ([], Shortfall.EXHAUSTED)


def test_one_bad_question_does_not_fail_the_batch() -> None:
    outcomes = make().recommend([Query("u-0"), Query("nobody"), Query("u-1")]).outcomes
    assert [type(outcome) for outcome in outcomes] == [Recommendation, UnknownUser, Recommendation]
    assert make().recommend([]).outcomes == []


def test_titles_come_when_asked_for_and_there() -> None:
    asked = only(make(), Query("u-0", k=3, include_titles=True))
    assert asked.titles == [item.replace("i-", "Title-") for item in asked.item_ids]
    assert only(make(), Query("u-0")).titles == []
    catalogue, items = integer_catalogue()
    exact = ExactIndex(items)
    bare = Recommender("bare", replace(catalogue, item_titles=None), index=exact, exact=exact, cosine=exact)
    assert only(bare, Query("u-0", include_titles=True)).titles == []


def test_similar_items_are_by_cosine_without_the_item_itself() -> None:
    _, items = integer_catalogue()
    lengths = np.linalg.norm(items, axis=1)
    start = int(np.flatnonzero(lengths > 0)[0])
    (answer,) = make().similar_items(SimilarQuery(f"i-{start}", k=29)).outcomes
    assert isinstance(answer, Recommendation)
    assert f"i-{start}" not in answer.item_ids
    rows = [int(item.removeprefix("i-")) for item in answer.item_ids]
    cosines = items @ items[start] / np.where(lengths > 0, lengths, np.inf) / lengths[start]
    np.testing.assert_allclose(answer.scores, cosines[rows], atol=1e-6)
    assert sorted(rows) == [row for row in range(ITEMS) if row != start]
    assert answer.source is Source.SIMILAR


def test_similar_items_keep_to_lists_and_bounds() -> None:
    _, recommender = fake_model()
    query = SimilarQuery("item-9", allow_item_ids=["item-10", "item-12", "item-60"], min_score=0.9)
    (answer,) = recommender.similar_items(query).outcomes
    assert isinstance(answer, Recommendation)
    assert answer.item_ids == ["item-10", "item-12"]
    assert answer.shortfall is Shortfall.BELOW_MIN_SCORE
    (outcome,) = recommender.similar_items(SimilarQuery("nothing")).outcomes
    assert isinstance(outcome, UnknownItem)


def test_the_fake_knows_its_answers() -> None:
    _, recommender = fake_model(users=8, items=100)
    assert only(recommender, Query("user-3", k=5)).item_ids == ["item-3", "item-4", "item-2", "item-5", "item-1"]
    everything = only(recommender, Query("user-3", k=100))
    assert "item-53" not in everything.item_ids
    assert everything.shortfall is Shortfall.EXHAUSTED


@pytest.mark.parametrize("size", [1, 3])
def test_time_is_accounted_for(size: int) -> None:
    answers = make().recommend([Query("u-0")] * size)
    assert min(answers.encode_ns, answers.search_ns, answers.filter_ns) > 0
