"""Both ways of leaving rows out give one result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from export.build.fold_in_choice import recent_steps
from serve.answers.fake import FakeFoldIn
from serve.answers.limits import RERANKED
from serve.answers.selection import diversify, first_good, relevance_of, reorder, walk
from serve.answers.types import Query, Recommendation, Source
from tests.serve.answers.test_recommender import make, only


@given(
    st.lists(
        st.tuples(st.sampled_from([3.0, 2.5, 1.0, -1.0]), st.integers(0, 30)), max_size=30, unique_by=lambda p: p[1]
    ),
    st.lists(st.integers(0, 30), max_size=10),
    st.integers(0, 3),
)
def test_a_walk_is_a_mask_and_a_sort(found: list[tuple[float, int]], blocked: list[int], missing: int) -> None:
    found.sort(key=lambda pair: -pair[0])
    scores = np.array([score for score, _ in found] + [-np.inf] * missing, dtype=np.float32)
    rows = np.array([row for _, row in found] + [-1] * missing, dtype=np.int64)
    keep = ~np.isin(rows, blocked) & (rows >= 0)
    order = np.lexsort((rows[keep], -scores[keep]))
    expected = (rows[keep][order].tolist(), scores[keep][order].tolist())
    assert walk(rows, scores, np.array(blocked, dtype=np.int32)) == expected


PLACES = st.integers(1, 12)


def unit(rng: np.random.Generator, size: int) -> np.ndarray:
    vectors = rng.normal(size=(size, 3)).astype(np.float32)
    made: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


def plain_mmr(relevance: np.ndarray, vectors: np.ndarray, diversity: float, wanted: int) -> list[int]:
    """Carbonell and Goldstein's formula, said in plain Python."""
    chosen: list[int] = []
    while len(chosen) < wanted:

        def gain(place: int) -> float:
            near = max((float(vectors[place] @ vectors[other]) for other in chosen), default=0.0)
            return (1 - diversity) * float(relevance[place]) - diversity * near

        chosen.append(max((place for place in range(len(relevance)) if place not in chosen), key=gain))
    return chosen


@given(PLACES, st.floats(0.05, 1), st.integers(0, 10_000))
def test_it_is_maximal_marginal_relevance(size: int, diversity: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevance, vectors = rng.random(size).astype(np.float32), unit(rng, size)
    order = diversify(relevance, vectors, diversity, size)
    assert sorted(order.tolist()) == list(range(size))
    expected = plain_mmr(relevance, vectors, diversity, size)
    gains = [expected.index(place) for place in order]
    assert gains == list(range(size)) or np.unique(relevance).size < size


@given(PLACES, st.integers(0, 10_000))
def test_without_diversity_it_sorts_and_a_longer_page_begins_with_a_shorter_one(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevance, vectors = rng.random(size).astype(np.float32), unit(rng, size)
    np.testing.assert_array_equal(diversify(relevance, vectors, 0.0, size), np.argsort(-relevance, kind="stable"))
    short, long = diversify(relevance, vectors, 0.6, size // 2), diversify(relevance, vectors, 0.6, size)
    np.testing.assert_array_equal(short[: size // 2], long[: size // 2])


def test_a_discount_weighs_popularity_against_the_spread_of_scores() -> None:
    scores = np.array([3.0, 2.0, 1.0], np.float32)
    popular = np.array([1.0, 0.5, 0.0], np.float32)
    np.testing.assert_allclose(relevance_of(scores, popular, 0.0), [1, 0.5, 0])
    np.testing.assert_allclose(relevance_of(scores, popular, 1.0), [0, 0, 0])
    np.testing.assert_allclose(relevance_of(np.ones(2, np.float32), np.zeros(2, np.float32), 1.0), [0, 0])
    assert relevance_of(np.empty(0, np.float32), np.empty(0, np.float32), 1.0).shape == (0,)


def test_what_is_not_reordered_stays() -> None:
    rows, scores = reorder(np.array([5, 6, 7, 8]), np.array([4, 3, 2, 1], np.float32), np.array([1, 0]))
    assert (rows.tolist(), scores.tolist()) == ([6, 5, 7, 8], [3, 4, 2, 1])
    assert first_good(scores[::-1], None) == 4
    assert first_good(np.array([4, 3, 2, 1], np.float32), 2.5) == 2


@pytest.mark.parametrize("index", ["exact", "poor"])
def test_a_diverse_answer_holds_eligible_items_pages_without_overlap_and_keeps_the_bound(index: str) -> None:
    recommender = make(index)
    plain = only(recommender, Query("u-1", k=30))
    options: dict[str, Any] = {"diversity": 0.7, "popularity_discount": 0.5}
    whole = only(recommender, Query("u-1", k=30, **options))
    assert sorted(whole.item_ids) == sorted(plain.item_ids)
    assert whole.item_ids != plain.item_ids
    pages = [only(recommender, Query("u-1", k=4, offset=offset, **options)).item_ids for offset in (0, 4, 8)]
    assert [item for page in pages for item in page] == whole.item_ids[:12]
    score_of = dict(zip(plain.item_ids, plain.scores, strict=True))
    assert whole.scores == [score_of[item] for item in whole.item_ids]
    good = only(recommender, Query("u-1", k=30, min_score=1.0, **options))
    assert sorted(good.item_ids) == sorted(item for item, score in score_of.items() if score >= 1.0)


def test_a_discount_moves_what_is_popular_down() -> None:
    recommender = make()
    rank = {f"i-{row}": place for place, row in enumerate(recommender.catalogue.popularity.tolist())}

    def mean_rank(discount: float) -> float:
        answers = [only(recommender, Query(f"u-{user}", k=5, popularity_discount=discount)) for user in range(5)]
        return float(np.mean([rank[item] for answer in answers for item in answer.item_ids]))

    assert mean_rank(0.0) < mean_rank(1.0) < mean_rank(50.0)


@pytest.mark.parametrize("step", [0.0, 1.0, 3.0])
def test_a_user_follows_the_fold_in_by_as_many_steps_as_the_model_says(step: float) -> None:
    recommender = make()
    vectors = np.stack([recommender._exact.item_vector(item) for item in range(30)])
    fold_in = FakeFoldIn(vectors)
    fold_in.recent_step = step
    recommender._fold_in = fold_in
    vector, has, _ = recommender._encode_user(Query("u-1"), 1)
    moved, _, _ = recommender._encode_updated(Query("u-1", recent=["i-3", "i-20"]), 1)
    assert vector is not None
    assert moved is not None
    histories = np.zeros((2, 30), dtype=np.float32)
    histories[0, has] = histories[1, has] = 1
    histories[1, [3, 20]] = 1
    before, after = sp.csr_matrix(histories[:1]), sp.csr_matrix(histories[1:])
    wanted = vector + step * recent_steps(vector[None], before, after, vectors)[0]
    np.testing.assert_allclose(moved, wanted, rtol=1e-5, atol=1e-6)


def test_recent_items_move_a_user_and_count_as_seen() -> None:
    recommender = make()
    before = only(recommender, Query("u-1", k=30))
    recent = before.item_ids[-3:]
    moved = only(recommender, Query("u-1", k=30, recent=[*recent, "nothing"]))
    assert (moved.source, moved.unknown_item_ids) == (Source.UPDATED, ["nothing"])
    assert not set(recent) & set(moved.item_ids)
    place = {item: number for number, item in enumerate(before.item_ids)}
    vectors = {item: recommender._exact.item_vector(int(item[2:])) for item in before.item_ids}
    toward = sum(vectors[item] for item in recent)
    near = [float(vectors[item] @ toward) for item in moved.item_ids[:5]]
    first = [float(vectors[item] @ toward) for item in before.item_ids[:5]]
    assert np.mean(near) >= np.mean(first)
    assert place[moved.item_ids[0]] >= 0
    same = only(recommender, Query("u-1", k=30, recent=["nothing"]))
    assert same.item_ids == before.item_ids


def test_a_batch_mixes_what_is_reranked_and_what_is_not() -> None:
    recommender = make("poor")
    queries = [Query("u-1", k=5), Query("u-1", k=5, diversity=0.9), Query("u-2", k=7, recent=["i-3"])]
    together = recommender.recommend(queries).outcomes
    for query, outcome in zip(queries, together, strict=True):
        assert isinstance(outcome, Recommendation)
        assert outcome.item_ids == only(recommender, query).item_ids
    assert RERANKED >= 100
