from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from export.build.fold_in import FoldInProblem, FoldInSettings, average_histories, fit_fold_in, fold_in
from export.build.fold_in_choice import RECENT_STEPS, choose_recent_step, choose_settings, cut_histories, recent_steps


def draw(seed: int, users: int, items: int, dim: int) -> tuple[sp.csr_matrix, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    had = sp.csr_matrix((rng.random((users, items)) < 0.3).astype(np.float32))
    return had, rng.normal(size=(users, dim)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    users=st.integers(1, 30),
    items=st.integers(1, 20),
    shrinkage=st.floats(0.01, 10),
    dropped=st.floats(0, 30),
)
def test_it_is_the_minimum_of_its_objective(
    seed: int, users: int, items: int, shrinkage: float, dropped: float
) -> None:
    had, vectors = draw(seed, users, items, 3)
    table = fit_fold_in(had, vectors, FoldInSettings(shrinkage, dropped))
    known = np.flatnonzero(had.sum(axis=1))
    if not len(known):
        return
    averaged, mean = average_histories(had).toarray()[known], vectors[known].mean(axis=0)
    gram, right = averaged.T @ averaged, averaged.T @ (vectors[known] - mean)
    system = gram + np.diag(shrinkage * gram.diagonal().mean() + dropped * gram.diagonal())
    scale = 1 / np.sqrt(system.diagonal())[:, None]
    left = np.linalg.norm(scale * (system @ (table - mean) - right), axis=0)
    assert (left <= 2e-3 * np.linalg.norm(scale * right, axis=0) + 1e-5).all()


def test_the_penalty_is_what_leaving_out_items_costs_on_average() -> None:
    """Against ridge regression on histories from which every item was dropped by a coin of its own, 20,000 times."""
    rng = np.random.default_rng(0)
    had, vectors = draw(5, 12, 6, 2)
    dropped = 1.0
    averaged, centred = average_histories(had).toarray(), vectors - vectors.mean(axis=0)
    stays = 1 / (1 + dropped)
    gram, right = np.zeros((6, 6)), np.zeros((6, 2))
    for _ in range(20_000):
        kept = averaged * (rng.random(averaged.shape) < stays) / stays
        gram += kept.T @ kept / 20_000
        right += kept.T @ centred / 20_000
    shrinkage = 1e-3 * np.square(averaged).sum(axis=0).mean() * np.eye(6)
    table = fit_fold_in(had, vectors, FoldInSettings(1e-3, dropped))
    np.testing.assert_allclose(table - vectors.mean(axis=0), np.linalg.solve(gram + shrinkage, right), atol=0.05)


def test_an_item_that_nobody_has_leads_to_the_mean_user() -> None:
    had = sp.csr_matrix(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32))
    vectors = np.array([[1, 3], [3, 5], [100, 100]], np.float32)
    table = fit_fold_in(had, vectors, FoldInSettings())
    np.testing.assert_allclose(table[2], [2, 4], atol=1e-6)


def test_without_any_history_every_item_leads_to_the_mean_user() -> None:
    table = fit_fold_in(
        sp.csr_matrix((2, 3), dtype=np.float32), np.array([[1, 2], [3, 4]], np.float32), FoldInSettings()
    )
    np.testing.assert_array_equal(table, np.tile([2, 3], (3, 1)))


def test_folding_in_is_a_mean() -> None:
    table = np.arange(8, dtype=np.float16).reshape(4, 2)
    folded = fold_in(sp.csr_matrix(np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], np.float32)), table)
    np.testing.assert_array_equal(folded, [[2, 3], [0, 0], [2, 3]])
    assert folded.dtype == np.float32


def checkerboard() -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Even users like even items; one item each is held out."""
    board = np.indices((20, 60)).sum(axis=0) % 2 == 0
    held = np.zeros_like(board)
    held[np.arange(20), np.arange(20)] = True
    return sp.csr_matrix((board & ~held).astype(np.float32)), sp.csr_matrix(held.astype(np.float32))


def test_settings_are_chosen_on_what_is_held_out() -> None:
    train, validation = checkerboard()
    items = np.zeros((60, 2), np.float32)
    items[np.arange(60), np.arange(60) % 2] = 1
    _, card = choose_settings(items, items[:20], train, validation, np.random.default_rng(0))
    # A user's own colour has one item left after masking, and from however few items it ranks first.
    assert card == {
        "validation_users": 4,
        "validation_recall@20": 1.0,
        "validation_recall@20_of_3": 1.0,
        "validation_recall@20_of_10": 1.0,
        "trained_vectors_validation_recall@20": 1.0,
    }


class Watched(FoldInProblem):
    """Remembers who taught, and which settings were tried."""

    taught: ClassVar[list[int]] = []
    tried: ClassVar[list[FoldInSettings]] = []

    def __init__(self, train: sp.csr_matrix, user_embeddings: npt.NDArray[np.float32]) -> None:
        super().__init__(train, user_embeddings)
        self.taught.append(len(user_embeddings))

    def solve(self, settings: FoldInSettings) -> npt.NDArray[np.float32]:
        self.tried.append(settings)
        return super().solve(settings)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    Watched.taught, Watched.tried = [], []
    monkeypatch.setattr("export.build.fold_in_choice.FoldInProblem", Watched)
    return Watched


def test_the_users_who_measure_are_not_those_who_teach(watched: type[Watched]) -> None:
    train, validation = checkerboard()
    items = np.ones((60, 2), np.float32)
    choose_settings(items, items[:20], train, validation, np.random.default_rng(0))
    assert watched.taught == [16], "what no setting changes is made once"
    assert len(set(watched.tried)) == len(watched.tried) == 16


def test_large_data_is_not_fitted_with_the_whole_grid(
    watched: type[Watched], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.build.fold_in_choice.GRID_NUMBERS", 100)
    train, validation = checkerboard()
    items = np.random.default_rng(3).normal(size=(60, 2)).astype(np.float32)
    chosen, card = choose_settings(items, items[:20], train, validation, np.random.default_rng(0))
    assert len(set(watched.tried)) == len(watched.tried) == 7
    assert chosen in watched.tried
    assert "fold-in: 7 of 16 settings are fitted" in capsys.readouterr().err
    assert 0 <= card["validation_recall@20_of_3"] <= 1


def test_fewer_users_measure_where_the_catalogue_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.build.fold_in_choice.RANKED_NUMBERS", 240)
    monkeypatch.setattr("export.build.fold_in_choice.FEWEST_USERS", 1)
    train, validation = checkerboard()
    items = np.ones((60, 2), np.float32)
    _, card = choose_settings(items, items[:20], train, validation, np.random.default_rng(0))
    assert card["validation_users"] == 2


def test_columns_are_solved_for_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    had, vectors = draw(0, 30, 20, 5)
    whole = fit_fold_in(had, vectors, FoldInSettings())
    monkeypatch.setattr("export.build.fold_in.BLOCK_NUMBERS", 40)
    np.testing.assert_allclose(fit_fold_in(had, vectors, FoldInSettings()), whole, rtol=5e-3, atol=5e-3)


def test_without_validation_items_the_defaults_stand() -> None:
    train, _ = checkerboard()
    nothing = sp.csr_matrix(train.shape, dtype=np.float32)
    items = np.ones((60, 2), np.float32)
    chosen, card = choose_settings(items, items[:20], train, nothing, np.random.default_rng(0))
    assert chosen == FoldInSettings()
    assert card == {"validation_users": 0}


def test_the_sample_is_drawn_from_the_generator_given() -> None:
    train, validation = checkerboard()
    items = np.random.default_rng(3).normal(size=(60, 2)).astype(np.float32)
    first, second = (choose_settings(items, items[:20], train, validation, np.random.default_rng(1)) for _ in range(2))
    assert first == second


def test_a_step_is_the_fold_ins_in_the_length_of_the_vector() -> None:
    table = np.array([[1, 0], [0, 2], [0, 0]], np.float32)
    before = sp.csr_matrix(np.array([[1, 0, 0], [0, 0, 1]], np.float32))
    after = sp.csr_matrix(np.array([[1, 1, 0], [0, 1, 1]], np.float32))
    vectors = np.array([[6, 8], [3, 4]], np.float32)
    # Folded in as (1, 0), then (.5, 1); the vector is ten times as long. A reference of no length scales by its own.
    np.testing.assert_allclose(recent_steps(vectors, before, after, table), [[-5, 10], [0, 5]])


def drifting(toward: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Users who have items of one half; later they take those of half `toward`, four each."""
    had, later = np.zeros((40, 200), np.float32), np.zeros((40, 200), np.float32)
    rng = np.random.default_rng(5)
    for user in range(40):
        half = user % 2
        had[user, 100 * half + rng.choice(50, 10, replace=False)] = 1
        later[user, 100 * ((half + toward) % 2) + 50 + rng.choice(50, 4, replace=False)] = 1
    return sp.csr_matrix(had), sp.csr_matrix(later)


@pytest.mark.parametrize("toward", [0, 1])
def test_the_step_is_long_where_tastes_drift_and_short_where_they_do_not(toward: int) -> None:
    train, validation = drifting(toward)
    items = np.zeros((200, 2), np.float32)
    items[np.arange(200), np.arange(200) // 100] = 1
    users = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    card = choose_recent_step(items, users, items, train, validation, np.random.default_rng(0))
    assert card["recent_step"] == (max(RECENT_STEPS) if toward else 0.0)
    assert card["recent_validation_recall@20"] >= card["unmoved_validation_recall@20"]


def test_without_two_later_items_the_step_is_one() -> None:
    train, validation = checkerboard()
    items = np.ones((60, 2), np.float32)
    card = choose_recent_step(items, items[:20], items, train, validation, np.random.default_rng(0))
    assert card == {"recent_step": 1.0}


@given(seed=st.integers(0, 100), length=st.integers(0, 8))
def test_histories_are_cut_to_items_they_have(seed: int, length: int) -> None:
    whole, _ = draw(seed, 7, 12, 1)
    cut = cut_histories(whole, length, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.diff(cut.indptr), np.minimum(np.diff(whole.indptr), length))
    assert cut.multiply(whole).nnz == cut.nnz
    assert set(cut.data) <= {1.0}


def test_scale_follows_the_users() -> None:
    had, vectors = draw(0, 30, 20, 4)
    first, tenfold = (fit_fold_in(had, factor * vectors, FoldInSettings()) for factor in (1, 10))
    np.testing.assert_allclose(tenfold, 10 * first, rtol=1e-3, atol=1e-3)
