from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.protocol import Protocol, evaluate
from export.build.ann import Vectors, build_index
from export.build.precision import PRECISIONS, store_vectors
from export.frontier.measuring import CUTOFF, ROUNDS, TAIL_ROUNDS, Judge
from tests.distill.toy import build_interactions


@pytest.fixture(scope="module")
def vectors(data: Interactions) -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(5)
    users, items = (rng.normal(size=(rows, 6)).astype(np.float32) for rows in (data.num_users, data.num_items))
    return users, items


@pytest.fixture
def judge(data: Interactions) -> Judge:
    return Judge(data, np.random.default_rng(0))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_quality_is_that_of_the_decoded_vectors(
    data: Interactions, judge: Judge, vectors: tuple[Vectors, Vectors], precision: str
) -> None:
    stored = store_vectors(*vectors, precision)
    quality = judge.judge(judge.rank(stored.users, stored.items))
    reports = {
        split: evaluate(stored.users, stored.items, data, Protocol(split=split, cutoffs=(CUTOFF,)))
        for split in ("validation", "test")
    }
    assert quality.test is not None
    for found, split in ((quality.validation, "validation"), (quality.test, "test")):
        assert found == pytest.approx({name: reports[split].metrics[name] for name in ("Recall@20", "NDCG@20")})
    np.testing.assert_allclose(quality.recalls, reports["validation"].per_user["Recall@20"])


def test_a_model_of_scores_is_judged_alike(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    by_scores = judge.rank_scores(lambda rows: users[rows] @ items.T)
    np.testing.assert_array_equal(by_scores, judge.rank(users, items))


def test_a_query_asks_for_what_the_user_already_has_too(data: Interactions, judge: Judge) -> None:
    had = np.diff(data.train.indptr)[judge.users[judge.sampled]]
    assert judge.wanted == np.minimum(CUTOFF + had, data.num_items).tolist()
    assert max(judge.wanted) > CUTOFF


def test_exact_search_finds_all_and_a_starved_graph_less(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    queries, exact = judge.queries(users), judge.rank(users, items)[judge.sampled]
    assert judge.ann_recall(build_index("Flat", items), queries, exact) == pytest.approx(1.0)
    half = build_index("Flat", items[: len(items) // 2])
    assert judge.ann_recall(half, queries, exact) < 0.7


def test_the_smallest_search_setting_that_finds_enough_is_set(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    queries, exact = judge.queries(users), judge.rank(users, items)[judge.sampled]
    index: Any = build_index("HNSW16", items)
    found = judge.set_quickest_search(index, queries, exact, 0.9)
    assert found is not None
    search, recall = found
    assert index.hnsw.efSearch == search["efSearch"] == 32
    assert recall == pytest.approx(judge.ann_recall(index, queries, exact))
    assert judge.set_quickest_search(index, queries, exact, 1.01) is None


def test_times_are_of_single_queries_on_one_thread(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    calls: list[tuple[int, int, int]] = []

    class Spy:
        def search(self, query: Vectors, wanted: int) -> None:
            calls.append((len(query), wanted, faiss.omp_get_max_threads()))

    spy: Any = Spy()
    latency = judge.time_index(spy, judge.queries(vectors[0]))
    assert 0 < latency.p50 <= latency.p99
    assert set(calls) == {(1, wanted, 1) for wanted in judge.wanted}
    tail = -(-len(judge.wanted) // 20)
    assert len(calls) == ROUNDS * len(judge.wanted) + TAIL_ROUNDS * tail
    num_calls = len(calls)
    assert judge.time_scan(spy, "Flat", judge.queries(vectors[0])) is judge.time_scan(
        spy, "Flat", judge.queries(vectors[0])
    )
    assert len(calls) == 2 * num_calls, "one shape is timed once"


def test_scoring_everything_is_timed_too(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    latency = judge.time_scores(lambda rows: users[rows] @ items.T)
    assert 0 < latency.p50 <= latency.p99


def test_data_without_a_test_split_is_judged_on_validation_alone() -> None:
    pairs = [(user, item) for user in range(4) for item in range(3)]
    data = build_interactions((4, 25), pairs, [(user, 10 + user) for user in range(4)])
    users, items = np.ones((4, 2), np.float32), np.ones((25, 2), np.float32)
    judge = Judge(data, np.random.default_rng(0))
    quality = judge.judge(judge.rank(users, items))
    assert quality.test is None
    assert len(quality.recalls) == 4


def test_nothing_to_choose_by() -> None:
    with pytest.raises(SettingError, match="no validation interactions"):
        Judge(build_interactions((2, 25), [(0, 0)]), np.random.default_rng(0))
    with pytest.raises(SettingError, match="fewer than a list of 20"):
        Judge(build_interactions((2, 5), [(0, 0)], [(0, 1)]), np.random.default_rng(0))
