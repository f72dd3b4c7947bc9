from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import pytrec_eval
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from distill.evaluation.metrics import (
    METRICS,
    find_hits,
    hit_rate_at_k,
    measure_ranking,
    ndcg_at_k,
    overlap,
    precision_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
)
from tests.distill.toy import build_interactions

TREC_MEASURES = {"Recall": "recall", "NDCG": "ndcg_cut", "Precision": "P", "HitRate": "success"}

HITS = np.array(
    [
        [True, False, True, False],
        [False, False, False, True],
        [False, False, False, False],
        [False, False, False, False],
    ]
)
NUM_RELEVANT = np.array([3, 1, 2, 0])


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (recall_at_k, 1, [1 / 3, 0, 0, 0]),
        (recall_at_k, 3, [2 / 3, 0, 0, 0]),
        (recall_at_k, 4, [2 / 3, 1, 0, 0]),
        (precision_at_k, 3, [2 / 3, 0, 0, 0]),
        (precision_at_k, 4, [1 / 2, 1 / 4, 0, 0]),
        (hit_rate_at_k, 3, [1, 0, 0, 0]),
        (hit_rate_at_k, 4, [1, 1, 0, 0]),
        (reciprocal_rank_at_k, 3, [1, 0, 0, 0]),
        (reciprocal_rank_at_k, 4, [1, 1 / 4, 0, 0]),
        (ndcg_at_k, 1, [1, 0, 0, 0]),
        (ndcg_at_k, 3, [(1 + 1 / 2) / (1 + 1 / np.log2(3) + 1 / 2), 0, 0, 0]),
        (ndcg_at_k, 4, [(1 + 1 / 2) / (1 + 1 / np.log2(3) + 1 / 2), 1 / np.log2(5), 0, 0]),
    ],
)
def test_answers_by_hand(metric: object, k: int, expected: list[float]) -> None:
    assert callable(metric)
    np.testing.assert_allclose(metric(HITS, NUM_RELEVANT, k), expected, rtol=1e-14)


def test_recall_divides_by_all_relevant_items_even_beyond_the_cutoff() -> None:
    assert recall_at_k(np.ones((1, 5), dtype=bool), np.array([20]), 5)[0] == 0.25


@st.composite
def rankings(draw: st.DrawFn) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    width = draw(st.integers(1, 12))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=6))
    hits = np.array(rows, dtype=bool)
    missed = draw(st.lists(st.integers(0, 5), min_size=len(rows), max_size=len(rows)))
    return hits, hits.sum(axis=1) + np.array(missed)


@given(rankings())
def test_every_metric_lies_between_0_and_1(ranking: tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]) -> None:
    hits, num_relevant = ranking
    for k in range(1, hits.shape[1] + 1):
        for metric in METRICS.values():
            values = metric(hits, num_relevant, k)
            assert values.shape == (len(hits),)
            assert values.dtype == np.float64
            assert (values >= 0).all()
            assert (values <= 1 + 1e-12).all()
            assert (values[num_relevant == 0] == 0).all()


@given(rankings())
def test_ndcg_is_1_exactly_for_an_ideal_ranking(
    ranking: tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]],
) -> None:
    hits, num_relevant = ranking
    for k in range(1, hits.shape[1] + 1):
        best = np.minimum(num_relevant, k)
        is_ideal = (num_relevant > 0) & (hits[:, :k].cumsum(axis=1)[:, -1] == best)
        is_ideal &= np.array([row[:n].all() for row, n in zip(hits, best, strict=True)])
        np.testing.assert_array_equal(np.isclose(ndcg_at_k(hits, num_relevant, k), 1.0, atol=1e-9), is_ideal)


@given(rankings())
def test_recall_hit_rate_and_reciprocal_rank_never_fall_with_k(
    ranking: tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]],
) -> None:
    hits, num_relevant = ranking
    for metric in (recall_at_k, hit_rate_at_k, reciprocal_rank_at_k):
        by_k = np.stack([metric(hits, num_relevant, k) for k in range(1, hits.shape[1] + 1)])
        assert (np.diff(by_k, axis=0) >= 0).all()


@pytest.mark.parametrize("k", [1, 3, 10])
def test_golden_against_pytrec_eval(rng: np.random.Generator, k: int) -> None:
    num_users, num_items = 60, 40
    relevant = rng.random((num_users, num_items)) < rng.uniform(0.02, 0.5, size=(num_users, 1))
    relevant[:, 0] |= ~relevant.any(axis=1)
    ranked = np.argsort(rng.random((num_users, num_items)), axis=1)[:, :k]
    judgements = {f"u{u}": {f"i{i}": 1 for i in np.flatnonzero(row)} for u, row in enumerate(relevant)}
    run = {f"u{u}": {f"i{i}": float(k - rank) for rank, i in enumerate(row)} for u, row in enumerate(ranked)}
    measures = {f"{name}.{k}" for name in TREC_MEASURES.values()} | {"recip_rank"}
    found = pytrec_eval.RelevanceEvaluator(judgements, measures).evaluate(run)
    hits = np.take_along_axis(relevant, ranked, axis=1)
    names = {**{ours: f"{theirs}_{k}" for ours, theirs in TREC_MEASURES.items()}, "MRR": "recip_rank"}
    assert set(names) == set(METRICS)
    for ours, theirs in names.items():
        expected = [found[f"u{u}"][theirs] for u in range(num_users)]
        np.testing.assert_allclose(METRICS[ours](hits, relevant.sum(axis=1), k), expected, atol=1e-9)


def test_overlap_counts_what_both_lists_hold_whatever_the_ranks() -> None:
    lists = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
    others = np.array([[4, 3, 2, 1], [5, 1, 6, 2], [5, 6, 7, 8]])
    assert overlap(lists, others).tolist() == [1.0, 0.5, 0.0]


def test_find_hits_handles_users_without_items_and_an_empty_split() -> None:
    data = build_interactions((3, 4), train=[(0, 0)], test=[(0, 1), (2, 3)])
    ranked = np.array([[1, 3], [1, 3], [1, 3]])
    users = np.arange(3)
    np.testing.assert_array_equal(find_hits(ranked, data.test, users), [[1, 0], [0, 0], [0, 1]])
    assert not find_hits(ranked, data.validation, users).any()


def test_the_order_in_which_relevant_items_are_stored_does_not_matter() -> None:
    stored = sp.csr_matrix((np.ones(3), [3, 0, 2], [0, 2, 3]), shape=(2, 4))
    assert not stored.has_sorted_indices
    np.testing.assert_array_equal(find_hits(np.array([[0, 1], [2, 3]]), stored, np.arange(2)), [[1, 0], [1, 0]])


def test_measure_ranking_measures_the_users_it_is_given() -> None:
    data = build_interactions((3, 4), train=[(0, 0)], test=[(0, 1), (0, 2), (2, 3)])
    found = measure_ranking(np.array([[3, 1], [2, 1], [0, 1]]), data.test, np.array([2, 0, 1]), [1, 2])
    assert set(found) == {f"{name}@{k}" for name in METRICS for k in (1, 2)}
    assert found["Recall@1"].tolist() == [1.0, 0.5, 0.0]
    assert found["Recall@2"].tolist() == [1.0, 1.0, 0.0]
    np.testing.assert_allclose(found["NDCG@2"], [1.0, 1.0, 0.0])
    assert found["Precision@2"].tolist() == [0.5, 1.0, 0.0]


def test_a_list_that_ends_before_the_cutoff_is_one_of_misses_from_there_on() -> None:
    hits, num_relevant = HITS[:, :3], np.array([3, 1, 2, 0])
    padded = np.pad(hits, ((0, 0), (0, 4)))
    for metric in METRICS.values():
        np.testing.assert_array_equal(metric(hits, num_relevant, 7), metric(padded, num_relevant, 7))


def test_overlap_takes_lists_of_any_length_and_missing_answers() -> None:
    exact = [np.array([0, 1, 2, 3]), np.array([7]), np.array([], dtype=np.int64)]
    found = [np.array([3, -1, 9]), np.array([7, 8]), np.array([-1])]
    assert overlap(exact, found).tolist() == [0.25, 1.0, 1.0]
    assert overlap([], []).tolist() == []
