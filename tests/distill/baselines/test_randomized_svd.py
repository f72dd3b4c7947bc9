"""The block of random vectors against the dense decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from distill.baselines import graph_filters, singular_basis
from distill.baselines.randomized_svd import largest_right_vectors


def matrix(seed: int = 0) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    tastes = rng.random((300, 5)) @ rng.random((5, 200))
    return sp.csr_matrix((rng.random((300, 200)) < tastes / tastes.max()).astype(np.float32))


def test_finds_what_the_dense_decomposition_finds() -> None:
    given = matrix()
    values, vectors = largest_right_vectors(given, 5, np.random.default_rng(1))
    _, exact, right = np.linalg.svd(given.toarray())
    np.testing.assert_allclose(values, exact[:5], rtol=5e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(abs(vectors[:, 0] @ right[0]), 1, atol=1e-5)


def test_the_same_seed_gives_the_same_vectors() -> None:
    first, again = (largest_right_vectors(matrix(), 5, np.random.default_rng(3))[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_large_data_is_filtered_by_it_to_the_same_space(monkeypatch: pytest.MonkeyPatch) -> None:
    train = matrix(2)
    exact = singular_basis(train, 3)
    monkeypatch.setattr(graph_filters, "BLOCK_FROM", 0)
    block = singular_basis(train, 3)
    np.testing.assert_allclose(block.values, exact.values, rtol=5e-3)
    np.testing.assert_allclose(block.items[:, 0] ** 2, exact.items[:, 0] ** 2, atol=1e-4)
