"""Against dense definitions in float64, written from the papers: NumPy's SVD where the code has eigenvectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.baselines import Baseline, gf_cf, graph_filters, ideal_filter, singular_basis, turbo_cf
from distill.errors import SettingError
from tests.distill.baselines.toy import Dense, random_interactions, scores_of
from tests.distill.toy import build_interactions

SHAPES = [(40, 15), (15, 40)]


def power(degrees: Dense, exponent: float) -> Dense:
    return np.diag([float(degree) ** exponent if degree else 0.0 for degree in degrees])


def dense_normalization(taken: Dense, alpha: float = 0.5) -> Dense:
    return np.asarray(power(taken.sum(1), -alpha) @ taken @ power(taken.sum(0), alpha - 1))


def dense_ideal(taken: Dense, chosen: slice | list[int]) -> Dense:
    """The band of some singular vectors above 0, in descending order of σ."""
    _, values, rows = np.linalg.svd(dense_normalization(taken))
    vectors = rows[: np.count_nonzero(values > 1e-9)][chosen]
    counts = taken.sum(0)
    return np.asarray(taken @ power(counts, -0.5) @ vectors.T @ vectors @ power(counts, 0.5))


def dense_turbo(taken: Dense, alpha: float, degree: int) -> Dense:
    normalized = dense_normalization(taken, alpha)
    p: Dense = normalized.T @ normalized
    filters: dict[int, Dense] = {1: p, 2: 2 * p - p @ p, 3: p + 0.01 * (-p @ p @ p + 10 * p @ p - 29 * p)}
    return np.asarray(taken @ filters[degree], dtype=np.float64)


@pytest.fixture(params=SHAPES, ids=["more-users", "more-items"])
def train(request: pytest.FixtureRequest, rng: np.random.Generator) -> sp.csr_matrix:
    return random_interactions(rng, request.param)


@pytest.fixture(params=["users", "items"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both orders of the polynomial, whichever is cheaper."""
    monkeypatch.setattr(graph_filters, "_is_dense_cheaper", lambda *_: request.param == "items")


def as_dense(train: sp.csr_matrix) -> Dense:
    return np.asarray(train.toarray(), dtype=np.float64)


def test_gf_cf_by_hand() -> None:
    # Both users took item 0, one of them item 1 too: R̃ = [[½, 1/√2], [1/√2, 0]].
    train = build_interactions((2, 2), train=[(0, 0), (0, 1), (1, 0)]).train
    linear = [[0.75 + 0.5 / 2**0.5, 0.5 + 0.5 / 2**0.5], [0.75, 0.5 / 2**0.5]]
    np.testing.assert_allclose(scores_of(gf_cf(train, 1, 0.0), train), linear, rtol=1e-6)
    # Rank 2 is everything: the ideal filter gives back what was taken.
    everything = np.array(linear) + 0.3 * as_dense(train)
    np.testing.assert_allclose(scores_of(gf_cf(train, 2, 0.3), train), everything, rtol=1e-6)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize(("rank", "weight"), [(1, 0.3), (5, 1.0), (1000, 0.1)])
def test_gf_cf_equals_its_dense_definition(train: sp.csr_matrix, rank: int, weight: float) -> None:
    taken = as_dense(train)
    expected = dense_turbo(taken, 0.5, 1) + weight * dense_ideal(taken, slice(rank))
    np.testing.assert_allclose(scores_of(gf_cf(train, rank, weight), train), expected, atol=1e-5)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.5, 1.0])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_turbo_cf_equals_its_dense_definition(train: sp.csr_matrix, alpha: float, degree: int) -> None:
    expected = dense_turbo(as_dense(train), alpha, degree)
    np.testing.assert_allclose(scores_of(turbo_cf(train, alpha, degree), train), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dense", [True, False])
def test_both_products_through_users_are_the_same(
    train: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch, dense: bool
) -> None:
    monkeypatch.setattr(graph_filters, "_is_dense_cheaper", lambda *_: False)
    monkeypatch.setattr(graph_filters, "SPARSE_COST", 1e9 if dense else 0)
    monkeypatch.setattr(graph_filters, "CHUNK", 7)
    expected = dense_turbo(as_dense(train), 0.5, 2)
    np.testing.assert_allclose(scores_of(turbo_cf(train, 0.5, 2), train), expected, atol=1e-5)


def test_the_order_follows_the_operations_and_never_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    few_items = sp.csr_matrix(np.ones((200, 5), dtype=np.float32))
    assert graph_filters._is_dense_cheaper(few_items, 1)
    assert turbo_cf(few_items, 0.5, 1).num_bytes == 4 * 5**2
    assert not graph_filters._is_dense_cheaper(sp.csr_matrix(np.ones((5, 200), dtype=np.float32)), 1)
    monkeypatch.setattr(graph_filters, "GRAM_MAX_BYTES", 99)
    assert not graph_filters._is_dense_cheaper(few_items, 1)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_lanczos_finds_what_the_dense_decomposition_finds(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    train = random_interactions(rng, shape)
    basis = singular_basis(train, 6)  # below a quarter of 60
    _, values, rows = np.linalg.svd(dense_normalization(as_dense(train)))
    np.testing.assert_allclose(basis.values, values[:6], rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(basis.items.T * rows[:6], axis=1)), 1, rtol=1e-5)
    np.testing.assert_array_equal(basis.items, singular_basis(train, 6).items)
    np.testing.assert_allclose(basis.values, singular_basis(train, 6, seed=1).values, rtol=1e-6)


def test_a_known_basis_is_cut_to_the_rank(train: sp.csr_matrix) -> None:
    known = gf_cf(train, 3, 0.3, basis=singular_basis(train, 9))
    np.testing.assert_allclose(scores_of(known, train), scores_of(gf_cf(train, 3, 0.3), train), atol=1e-5)


def test_directions_that_nobody_took_are_not_in_the_basis(rng: np.random.Generator) -> None:
    train = sp.vstack([random_interactions(rng, (6, 50))] * 3, format="csr")  # rank 5 at most
    for rank in (4, 100):
        assert len(singular_basis(train, rank).values) == min(rank, np.linalg.matrix_rank(train.toarray()))
    many = random_interactions(rng, (100, 30))
    few = sp.csr_matrix(many.toarray() * (np.arange(30) < 3))
    assert len(singular_basis(few, 7).values) == 3  # by Lanczos


@pytest.mark.parametrize("band", ["low", "high", "all"])
def test_ideal_filters_equal_their_dense_definition(train: sp.csr_matrix, band: graph_filters.Band) -> None:
    taken = as_dense(train)
    whole = int(np.linalg.matrix_rank(taken))
    bands: dict[str, slice | list[int]] = {
        "low": slice(3),
        "high": slice(whole - 3, whole),
        "all": [0, round((whole - 1) / 2), whole - 1],
    }
    found = scores_of(ideal_filter(train, 3, band), train)
    np.testing.assert_allclose(found, dense_ideal(taken, bands[band]), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.1, 0.9), st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_what_filters_are_made_of(users: int, items: int, share: float, seed: int, rank: int) -> None:
    train = random_interactions(np.random.default_rng(seed), (users, items), share)
    plain = gf_cf(train, 1, 0.0) if train.nnz else None
    if plain is not None:
        np.testing.assert_allclose(scores_of(turbo_cf(train, 0.5, 1), train), scores_of(plain, train), atol=1e-5)
    # Low frequencies and the rest are everything, and everything of R̃'s rows gives back R.
    values = singular_basis(train, 1000).values
    whole = len(values)
    low = min(rank, whole)
    # Of directions with the same σ no two computations take the same ones: the cut goes past them.
    low += int(np.sum(np.isclose(values[low:], values[low - 1], atol=1e-6))) if low else 0
    parts: list[Baseline] = [ideal_filter(train, low, "low")] if low else []
    parts += [ideal_filter(train, whole - low, "high")] if whole > low else []
    total = sum((scores_of(part, train) for part in parts), np.zeros(train.shape))
    np.testing.assert_allclose(total, as_dense(train), atol=1e-4)
    if whole:
        np.testing.assert_allclose(scores_of(ideal_filter(train, whole, "all"), train), total, atol=1e-4)


def test_settings_outside_are_refused(train: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: dict[str, Callable[[], Baseline]] = {
        "rank: 0 is below 1": lambda: gf_cf(train, 0, 0.3),
        "ideal_weight: -1 is negative": lambda: gf_cf(train, 1, -1),
        "alpha: 1.5 is not from 0 to 1": lambda: turbo_cf(train, 1.5, 1),
        "degree: 4 is not one of 1, 2, 3": lambda: turbo_cf(train, 0.5, 4),
        "band: 'middle' is not one of low, high, all": lambda: ideal_filter(train, 1, "middle"),  # type: ignore[arg-type]
        "rank: -1 is below 1": lambda: ideal_filter(train, -1, "high"),
    }
    for words, build in cases.items():
        with pytest.raises(SettingError, match=words):
            build()
    monkeypatch.setattr(graph_filters, "MAX_EXACT", 14)
    bands: tuple[graph_filters.Band, ...] = ("high", "all")
    for band in bands:
        with pytest.raises(SettingError, match=r"band: 15 of the fewer .* exceed the 14 of a whole eigenbasis"):
            ideal_filter(train, 1, band)
    ideal_filter(train, 2, "low")
