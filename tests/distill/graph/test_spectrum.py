from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import SettingError
from distill.graph.adjacency import bipartite_adjacency, laplacian, symmetric_normalization
from distill.graph.filters import GraphFilter, linear_coefficients, quadratic_coefficients, response
from distill.graph.spectrum import (
    MAX_ENTITIES,
    Spectrum,
    equal_count_groups,
    equal_width_groups,
    exact_spectrum,
    knowledge_energies,
    knowledge_losses,
)
from tests.distill.toy import build_random_graph

SEEDS = st.integers(0, 2**32 - 1)


def complete_bipartite(left: int, right: int) -> sp.csr_matrix:
    """Its frequencies are 0, 1 (left + right − 2 times) and 2."""
    return symmetric_normalization(bipartite_adjacency(sp.csr_matrix(np.ones((left, right), dtype=np.float32))))


def test_a_single_edge_has_frequencies_zero_and_two() -> None:
    edge = symmetric_normalization(sp.csr_matrix(np.array([[0.0, 3.0], [3.0, 0.0]])))
    spectrum = exact_spectrum(edge)
    np.testing.assert_allclose(spectrum.frequencies, [0.0, 2.0], atol=1e-7)
    low, high = np.abs(spectrum.eigenvectors.T @ np.array([[1.0, 1.0], [1.0, -1.0]]).T / np.sqrt(2))
    np.testing.assert_allclose(low, [1.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(high, [0.0, 1.0], atol=1e-7)


@given(SEEDS, st.booleans())
def test_eigenbasis_rebuilds_the_laplacian_and_frequencies_lie_in_0_to_2(seed: int, bipartite: bool) -> None:
    normalized = build_random_graph(np.random.default_rng(seed), bipartite=bipartite)
    spectrum = exact_spectrum(normalized)
    basis = spectrum.eigenvectors
    np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-12)
    np.testing.assert_allclose((basis * spectrum.frequencies) @ basis.T, laplacian(normalized).toarray(), atol=1e-6)
    assert np.all(np.diff(spectrum.frequencies) >= 0)
    assert spectrum.frequencies[0] == pytest.approx(0, abs=1e-6)
    assert spectrum.frequencies[-1] < 2 + 1e-6


@given(SEEDS, st.booleans(), st.integers(1, 9))
def test_theorem_1_losses_by_frequency_sum_to_the_feature_loss(seed: int, bipartite: bool, width: int) -> None:
    rng = np.random.default_rng(seed)
    spectrum = exact_spectrum(build_random_graph(rng, bipartite=bipartite))
    size = len(spectrum.frequencies)
    teacher, student = rng.normal(size=(size, width)), rng.normal(size=(size, width))
    losses = knowledge_losses(spectrum.eigenvectors, teacher, student)
    assert losses.shape == (size,)
    assert losses.min() >= 0
    assert losses.sum() == pytest.approx(np.square(teacher - student).sum(), rel=1e-12)


@given(
    SEEDS,
    st.booleans(),
    st.one_of(
        st.floats(0, 1).map(linear_coefficients),
        st.floats(0, 1).map(quadratic_coefficients),
        st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=5).map(tuple),
    ),
)
def test_a_filter_weighs_frequency_k_by_its_squared_response(
    seed: int, bipartite: bool, coefficients: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(seed)
    graph = build_random_graph(rng, bipartite=bipartite)
    spectrum = exact_spectrum(graph)
    gap = rng.normal(size=(graph.shape[0], 4)).astype(np.float32)
    filtered = GraphFilter(graph, coefficients).filter_all(gap)
    weights = response(coefficients, spectrum.frequencies) ** 2
    expected = weights * knowledge_energies(spectrum.eigenvectors, gap)
    np.testing.assert_allclose(knowledge_energies(spectrum.eigenvectors, filtered), expected, rtol=1e-3, atol=1e-3)


@given(SEEDS, st.floats(0.05, 0.5), st.integers(1, 54))
def test_a_low_pass_lowers_the_share_above_any_frequency(seed: int, alpha: float, cut: int) -> None:
    rng = np.random.default_rng(seed)
    graph = build_random_graph(rng)
    basis = exact_spectrum(graph).eigenvectors
    features = rng.normal(size=(graph.shape[0], 4)).astype(np.float32)
    for coefficients in (linear_coefficients(alpha), quadratic_coefficients(alpha)):
        before = knowledge_energies(basis, features)
        after = knowledge_energies(basis, GraphFilter(graph, coefficients).filter_all(features))
        assert after[cut:].sum() / after.sum() < before[cut:].sum() / before.sum()


def test_a_gap_along_one_eigenvector_shows_at_its_frequency_alone(rng: np.random.Generator) -> None:
    spectrum = exact_spectrum(build_random_graph(rng))
    gap = np.outer(spectrum.eigenvectors[:, 5], [3.0, 4.0])
    losses = knowledge_losses(spectrum.eigenvectors, gap, np.zeros_like(gap))
    expected = np.zeros(len(losses))
    expected[5] = 25.0
    np.testing.assert_allclose(losses, expected, atol=1e-10)


def test_a_graph_over_the_bound_is_refused() -> None:
    size = MAX_ENTITIES + 1
    with pytest.raises(SettingError, match=r"6,001 entities.*6,000.*equal width"):
        exact_spectrum(sp.csr_matrix((size, size), dtype=np.float32))


def test_equal_widths_count_the_frequencies_of_a_complete_bipartite_graph() -> None:
    spectrum = exact_spectrum(complete_bipartite(3, 4))
    odd, even = equal_width_groups(spectrum, 5), equal_width_groups(spectrum, 4)
    np.testing.assert_array_equal(odd.counts, [1, 0, 5, 0, 1])
    np.testing.assert_allclose(odd.bounds[2], [0.8, 1.2])
    np.testing.assert_array_equal(even.counts, [1, 0, 5, 1])  # 1 is a boundary and belongs to the upper group


def test_an_entity_without_edges_stands_at_frequency_1() -> None:
    graph = symmetric_normalization(sp.csr_matrix((4, 4), dtype=np.float32))
    groups = equal_width_groups(exact_spectrum(graph), 3)
    np.testing.assert_allclose(groups.energies(np.full((4, 2), 3.0)), [0, 72, 0], atol=1e-12)


def test_equal_counts_differ_by_one_at_most_and_keep_the_order(rng: np.random.Generator) -> None:
    spectrum = exact_spectrum(build_random_graph(rng))
    groups = equal_count_groups(spectrum, 7)
    assert groups.counts.sum() == 55
    assert set(groups.counts) == {7, 8}
    assert np.all(groups.bounds[:, 0] <= groups.bounds[:, 1])
    assert np.all(groups.bounds[1:, 0] >= groups.bounds[:-1, 1])
    features = rng.normal(size=(55, 3))
    assert groups.energies(features).sum() == pytest.approx(np.square(features).sum(), rel=1e-12)


def test_more_groups_than_frequencies_are_refused() -> None:
    with pytest.raises(SettingError, match="8 groups of 7 frequencies"):
        equal_count_groups(exact_spectrum(complete_bipartite(3, 4)), 8)


def test_an_eigenspace_cut_by_a_boundary_is_spread_evenly_whatever_its_basis(rng: np.random.Generator) -> None:
    spectrum = exact_spectrum(complete_bipartite(3, 4))
    features = rng.normal(size=(7, 2))
    energies = equal_count_groups(spectrum, 7).energies(features)
    np.testing.assert_allclose(energies[1:6], energies[1])
    rotated = spectrum.eigenvectors.copy()
    rotated[:, 1:6] @= np.linalg.qr(rng.normal(size=(5, 5)))[0]
    other = equal_count_groups(Spectrum(spectrum.frequencies, rotated), 7).energies(features)
    np.testing.assert_allclose(other, energies, rtol=1e-10)
