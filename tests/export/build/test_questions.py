from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
import scipy.sparse as sp

from export.build.ann import Vectors, build_index
from export.build.questions import FEWEST_USERS, MAX_OVER_FETCH, MOST_USERS, ROUNDS, draw_questions, measure_recall


def vectors(count: int, seed: int, dim: int = 6) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def had(num_users: int, num_items: int, density: float = 0.1) -> sp.csr_matrix:
    dense = np.random.default_rng(9).random((num_users, num_items)) < density
    return sp.csr_matrix(dense.astype(np.float32))


def test_exact_lists_hold_the_best_that_users_do_not_have() -> None:
    items, users, seen = vectors(200, 0), vectors(30, 1), had(30, 200)
    questions = draw_questions(users, seen, np.random.default_rng(0))
    scores = users @ items.T
    scores[seen.toarray() > 0] = -np.inf
    for user, rows in enumerate(questions.answer_exactly(items)):
        assert rows.tolist() == np.argsort(-scores[user])[:20].tolist()
        assert questions.wanted[user] == 20 + seen[user].nnz


def test_an_index_is_asked_for_what_users_have_as_well() -> None:
    items, users, seen = vectors(200, 0), vectors(30, 1), had(30, 200)
    questions = draw_questions(users, seen, np.random.default_rng(0))
    index = build_index("Flat", items)
    found, latency = questions.answer(index, {}, items)
    assert measure_recall(found, questions.answer_exactly(items)) == 1.0
    assert 0 < latency.p50 <= latency.p99
    assert [rows.tolist() for rows in questions.answer_at_once(index)] == [rows.tolist() for rows in found]
    assert not any(np.isin(rows, seen[user].indices).any() for user, rows in enumerate(found))


def test_a_user_who_has_everything_has_found_everything() -> None:
    questions = draw_questions(vectors(2, 1), sp.csr_matrix(np.ones((2, 30))), np.random.default_rng(0))
    assert [len(rows) for rows in questions.answer_exactly(vectors(30, 0))] == [0, 0]
    assert measure_recall([np.array([], dtype=np.int64)], [np.array([], dtype=np.int64)]) == 1.0


def test_who_has_too_much_for_an_index_is_not_asked() -> None:
    seen = sp.lil_matrix((3, 3000), dtype=np.float32)
    seen[1, :MAX_OVER_FETCH] = 1
    questions = draw_questions(vectors(3, 1), seen.tocsr(), np.random.default_rng(0))
    assert questions.wanted == [20, 20]


@pytest.mark.parametrize(
    ("num_items", "asked"), [(10, MOST_USERS), (4_000_000, 2000 * 10**9 // (4 * 10**9)), (10**9, FEWEST_USERS)]
)
def test_fewer_users_are_asked_of_larger_catalogues(num_items: int, asked: int) -> None:
    nothing = sp.csr_matrix((2000, num_items), dtype=np.float32)
    assert len(draw_questions(vectors(2000, 1, 5), nothing, np.random.default_rng(0)).wanted) == asked


def test_recall_counts_missing_rows_as_missing() -> None:
    assert measure_recall([np.array([0]), np.array([2, 3])], [np.array([0, 1]), np.array([3, 2])]) == 0.75


def test_times_are_of_single_queries_on_one_thread() -> None:
    items, users, seen = vectors(200, 0), vectors(30, 1), had(30, 200)
    questions = draw_questions(users, seen, np.random.default_rng(0))
    calls: list[tuple[int, int, int]] = []
    index = build_index("Flat", items)

    class Spy:
        def search(self, query: Vectors, wanted: int) -> Any:
            calls.append((len(query), wanted, faiss.omp_get_max_threads()))
            return index.search(query, wanted)

    spy: Any = Spy()
    _, latency = questions.answer(spy, {}, items)
    assert 0 < latency.p50 <= latency.p99
    assert set(calls) == {(1, wanted, 1) for wanted in questions.wanted}
    assert len(calls) == ROUNDS * len(questions.wanted)


def test_whatever_answers_is_timed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = draw_questions(vectors(30, 1), had(30, 200), np.random.default_rng(0))
    clock = iter(range(10**6))
    monkeypatch.setattr("time.thread_time", lambda: next(clock) * 1e-6)
    answers, latency = questions.time(lambda number, wanted: (questions.users[number], wanted))
    assert answers == list(zip(questions.users, questions.wanted, strict=True))
    assert (latency.p50, latency.p99) == (1.0, 1.0)
