from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from export.build.fold_in import FoldInWeights, build_whitening, fold_in
from export.build.fold_in_choice import choose_weights


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    dim=st.integers(1, 12),
    length=st.integers(1, 30),
    ridge=st.floats(0.01, 10),
    gram_weight=st.floats(0, 1),
)
def test_it_is_the_minimum_of_its_objective(seed: int, dim: int, length: int, ridge: float, gram_weight: float) -> None:
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(40, dim))
    rows = rng.integers(0, 40, size=length)
    weights = FoldInWeights(ridge, gram_weight)
    user = fold_in(items[rows], build_whitening(items, weights))
    gradient = (
        items[rows].T @ (items[rows] @ user - 1) + gram_weight * items.T @ (items @ user) + weights.ridge(items) * user
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-8 * length * dim)


def test_whitening_whitens() -> None:
    items = np.random.default_rng(0).normal(size=(30, 5))
    weights = FoldInWeights(0.5, 0.1)
    prior = 0.1 * items.T @ items + weights.ridge(items) * np.eye(5)
    whitening = build_whitening(items, weights)
    np.testing.assert_allclose(whitening.T @ prior @ whitening, np.eye(5), atol=1e-12)


def test_items_that_are_all_zero_fold_in_to_zero() -> None:
    user = fold_in(np.zeros((2, 3)), build_whitening(np.zeros((4, 3)), FoldInWeights()))
    np.testing.assert_array_equal(user, np.zeros(3))


def checkerboard() -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Even users like even items; one item each is held out."""
    board = np.indices((20, 60)).sum(axis=0) % 2 == 0
    held = np.zeros_like(board)
    held[np.arange(20), np.arange(20)] = True
    return sp.csr_matrix((board & ~held).astype(np.float32)), sp.csr_matrix(held.astype(np.float32))


def test_weights_are_chosen_on_what_is_held_out() -> None:
    train, validation = checkerboard()
    items = np.zeros((60, 2), np.float32)
    items[np.arange(60), np.arange(60) % 2] = 1
    users = items[:20]
    _, card = choose_weights(items, users, train, validation, np.random.default_rng(0))
    # After masking, a user's own colour has one item left, and it ranks first.
    assert card == {
        "validation_users": 20,
        "validation_recall@20": 1.0,
        "trained_vectors_validation_recall@20": 1.0,
    }


def test_without_validation_items_the_defaults_stand() -> None:
    train, _ = checkerboard()
    nothing = sp.csr_matrix(train.shape, dtype=np.float32)
    items = np.ones((60, 2), np.float32)
    weights, card = choose_weights(items, items[:20], train, nothing, np.random.default_rng(0))
    assert weights == FoldInWeights()
    assert card == {"validation_users": 0}


def test_the_sample_is_drawn_from_the_generator_given() -> None:
    train, validation = checkerboard()
    items = np.random.default_rng(3).normal(size=(60, 2)).astype(np.float32)
    first, second = (choose_weights(items, items[:20], train, validation, np.random.default_rng(1)) for _ in range(2))
    assert first == second


def test_ridge_scales_with_the_items() -> None:
    items = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    assert FoldInWeights().ridge(items * 10) == pytest.approx(100 * FoldInWeights().ridge(items), rel=1e-5)
