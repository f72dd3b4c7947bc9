from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from distill.errors import SettingError
from distill.graph import bipartite_adjacency, cooccurrence_adjacency, laplacian, symmetric_normalization
from distill.spectrum import MAX_ENTITIES, exact_spectrum, knowledge_losses
from tests.distill.toy import build_random


def test_a_single_edge_has_frequencies_zero_and_two() -> None:
    edge = symmetric_normalization(sp.csr_matrix(np.array([[0.0, 3.0], [3.0, 0.0]])))
    spectrum = exact_spectrum(edge)
    np.testing.assert_allclose(spectrum.frequencies, [0.0, 2.0], atol=1e-7)
    low, high = np.abs(spectrum.eigenvectors.T @ np.array([[1.0, 1.0], [1.0, -1.0]]).T / np.sqrt(2))
    np.testing.assert_allclose(low, [1.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(high, [0.0, 1.0], atol=1e-7)


@pytest.mark.parametrize("variant", ["bipartite", "cooccurrence"])
def test_eigenbasis_rebuilds_the_laplacian(rng: np.random.Generator, variant: str) -> None:
    data = build_random(rng)
    adjacency = bipartite_adjacency(data.train) if variant == "bipartite" else cooccurrence_adjacency(data.train, 3)
    normalized = symmetric_normalization(adjacency)
    spectrum = exact_spectrum(normalized)
    basis = spectrum.eigenvectors
    np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-12)
    np.testing.assert_allclose((basis * spectrum.frequencies) @ basis.T, laplacian(normalized).toarray(), atol=1e-6)
    assert spectrum.frequencies.min() > -1e-6
    assert spectrum.frequencies.max() < 2 + 1e-6


def test_theorem_1_losses_by_frequency_sum_to_the_feature_loss(rng: np.random.Generator) -> None:
    data = build_random(rng)
    spectrum = exact_spectrum(symmetric_normalization(bipartite_adjacency(data.train)))
    size = len(spectrum.frequencies)
    teacher, student = rng.normal(size=(size, 7)), rng.normal(size=(size, 7))
    losses = knowledge_losses(spectrum.eigenvectors, teacher, student)
    assert losses.shape == (size,)
    assert losses.sum() == pytest.approx(np.square(teacher - student).sum(), rel=1e-12)


def test_a_gap_along_one_eigenvector_shows_at_its_frequency_alone(rng: np.random.Generator) -> None:
    data = build_random(rng)
    spectrum = exact_spectrum(symmetric_normalization(bipartite_adjacency(data.train)))
    gap = np.outer(spectrum.eigenvectors[:, 5], [3.0, 4.0])
    losses = knowledge_losses(spectrum.eigenvectors, gap, np.zeros_like(gap))
    expected = np.zeros(len(losses))
    expected[5] = 25.0
    np.testing.assert_allclose(losses, expected, atol=1e-10)


def test_a_graph_over_the_bound_is_refused() -> None:
    size = MAX_ENTITIES + 1
    with pytest.raises(SettingError, match=r"6,001 entities.*6,000"):
        exact_spectrum(sp.csr_matrix((size, size), dtype=np.float32))
