from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation import sample
from distill.evaluation.protocol import Protocol, evaluate
from export.build.ann import Vectors, build_index
from export.build.precision import PRECISIONS, store
from export.build.quality import CUTOFF
from export.build.questions import ROUNDS, measure_recall
from export.frontier.measuring import Judge, time_scores
from tests.distill.toy import build_interactions


@pytest.fixture(scope="module")
def vectors(data: Interactions) -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(5)
    users, items = (rng.normal(size=(rows, 6)).astype(np.float32) for rows in (data.num_users, data.num_items))
    return users, items


@pytest.fixture
def judge(data: Interactions) -> Judge:
    return Judge(data, 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_quality_is_that_of_the_decoded_vectors(
    data: Interactions, judge: Judge, vectors: tuple[Vectors, Vectors], precision: str
) -> None:
    stored = store(*vectors, precision)
    quality = judge.judge(judge.rank(stored.users, stored.items))
    reports = {
        split: evaluate(stored.users, stored.items, data, Protocol(split=split, cutoffs=(CUTOFF,)))
        for split in ("validation", "test")
    }
    assert quality.test is not None
    for found, split in ((quality.validation, "validation"), (quality.test, "test")):
        assert found == pytest.approx({name: reports[split].metrics[name] for name in ("Recall@20", "NDCG@20")})
    np.testing.assert_allclose(quality.recalls, reports["validation"].per_user["Recall@20"])


def test_a_sample_of_users_judges_where_there_are_many(
    data: Interactions, vectors: tuple[Vectors, Vectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "MOST_SCORES", 0)
    monkeypatch.setattr(sample, "LEAST_USERS", 9)
    judge = Judge(data, 0)
    assert judge.sample.is_drawn
    assert judge.convention.endswith(
        f"mean over 9 of {judge.sample.num_relevant} users with relevant items, drawn with seed 0"
    )
    assert judge.rank(*vectors).shape == (9, CUTOFF)
    assert 1 <= len(judge.judge(judge.rank(*vectors)).recalls) <= 9


def test_a_model_of_scores_is_judged_alike(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    by_scores = judge.rank_scores(lambda rows: users[rows] @ items.T)
    np.testing.assert_array_equal(by_scores, judge.rank(users, items))


def test_a_query_asks_for_what_the_user_already_has_too(
    data: Interactions, judge: Judge, vectors: tuple[Vectors, Vectors]
) -> None:
    questions = judge.questions(vectors[0])
    had = np.diff((data.train + data.validation).tocsr().indptr)[questions.users]
    assert questions.wanted == (CUTOFF + had).tolist()
    assert max(questions.wanted) > CUTOFF
    np.testing.assert_array_equal(questions.vectors, vectors[0][questions.users])
    assert judge.questions(vectors[0][:, :2]).users.tolist() == questions.users.tolist(), "the same users for all"


def test_exact_search_finds_all_and_half_the_items_less(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    questions = judge.questions(users)
    exact = questions.answer_exactly(items)
    assert measure_recall(questions.answer_at_once(build_index("Flat", items)), exact) == pytest.approx(1.0)
    half = build_index("Flat", items[: len(items) // 2])
    assert measure_recall(questions.answer_at_once(half), exact) < 0.7


def test_one_shape_is_timed_once(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    questions, index, calls = judge.questions(users), build_index("Flat", items), []

    class Spy:
        def search(self, query: Vectors, wanted: int) -> Any:
            calls.append(wanted)
            return index.search(query, wanted)

    spy: Any = Spy()
    latency = judge.time_scan(spy, "Flat", questions, items)
    assert 0 < latency.p50 <= latency.p99
    assert len(calls) == ROUNDS * len(questions.wanted)
    assert judge.time_scan(spy, "Flat", questions, items) is latency
    assert len(calls) == ROUNDS * len(questions.wanted)
    assert judge.time_scan(spy, "SQ8", questions, items) is not latency


def test_scoring_everything_is_timed_too(judge: Judge, vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    asked: list[int] = []

    def score_rows(rows: npt.NDArray[np.int64]) -> Vectors:
        asked.extend(rows.tolist())
        return users[rows] @ items.T

    questions = judge.questions(users)
    latency = time_scores(score_rows, questions, len(items))
    assert 0 < latency.p50 <= latency.p99
    assert asked == ROUNDS * questions.users.tolist(), "one user at a time"


def test_data_without_a_test_split_is_judged_on_validation_alone() -> None:
    pairs = [(user, item) for user in range(4) for item in range(3)]
    data = build_interactions((4, 25), pairs, [(user, 10 + user) for user in range(4)])
    users, items = np.ones((4, 2), np.float32), np.ones((25, 2), np.float32)
    judge = Judge(data, 0)
    quality = judge.judge(judge.rank(users, items))
    assert quality.test is None
    assert len(quality.recalls) == 4


def test_nothing_to_choose_by() -> None:
    with pytest.raises(SettingError, match="no validation interactions"):
        Judge(build_interactions((2, 25), [(0, 0)]), 0)
    with pytest.raises(SettingError, match="fewer than a list of 20"):
        Judge(build_interactions((2, 5), [(0, 0)], [(0, 1)]), 0)
