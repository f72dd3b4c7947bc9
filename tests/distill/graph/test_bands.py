from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from distill.data.synthetic import SyntheticOptions, synthesize
from distill.graph.adjacency import bipartite_adjacency, laplacian, symmetric_normalization
from distill.graph.bands import (
    BLOCK_COLUMNS,
    MOMENTS_PER_BAND,
    ChebyshevBands,
    chebyshev_moments,
    window_coefficients,
    window_responses,
)
from distill.graph.spectrum import equal_width_edges, equal_width_groups, exact_spectrum, knowledge_energies
from tests.distill.toy import build_random_graph

SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(2, 40), st.integers(1, 16))
def test_windows_are_a_partition_of_unity(num_bands: int, moments_per_band: int) -> None:
    windows = window_coefficients(equal_width_edges(num_bands), 2 * moments_per_band * num_bands)
    responses = window_responses(windows, np.linspace(0, 2, 201))
    np.testing.assert_allclose(responses.sum(axis=0), 1, atol=1e-12)
    assert responses.min() > -1e-12


def test_a_window_is_one_inside_its_band_and_nothing_beyond_the_next() -> None:
    edges = equal_width_edges(21)
    windows = window_coefficients(edges, MOMENTS_PER_BAND * 21)
    middles = window_responses(windows, (edges[:-1] + edges[1:]) / 2)
    assert middles.diagonal().min() > 0.998
    far = np.abs(np.subtract.outer(np.arange(21), np.arange(21))) > 1
    assert middles[far].max() < 5e-5
    at_edges = window_responses(windows, edges)
    np.testing.assert_allclose(at_edges[[0, -1], [0, -1]], 1, atol=1e-4)
    np.testing.assert_allclose(at_edges[range(20), range(1, 21)], 0.5, atol=0.01)


def test_large_graphs_are_filtered_in_float32_and_nothing_shows(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build_random_graph(rng, bipartite=True)
    features = rng.normal(size=(graph.shape[0], BLOCK_COLUMNS + 3)).astype(np.float32)
    exact = ChebyshevBands(graph, 21, np.random.default_rng(0)).energies(features)
    monkeypatch.setattr("distill.graph.bands.MOST_IN_FLOAT64", 1)
    rounded = ChebyshevBands(graph, 21, np.random.default_rng(0)).energies(features)
    assert (exact != rounded).any(), "it is another computation"
    np.testing.assert_allclose(rounded, exact, atol=1e-5 * np.square(features).sum())


@given(SEEDS, st.booleans(), st.integers(1, 2 * BLOCK_COLUMNS + 1))
def test_moments_equal_those_of_the_dense_recursion(seed: int, bipartite: bool, width: int) -> None:
    rng = np.random.default_rng(seed)
    graph = build_random_graph(rng, bipartite=bipartite)
    features = rng.normal(size=(graph.shape[0], width))
    operator = laplacian(graph).toarray().astype(np.float64) - np.eye(graph.shape[0])
    terms = [features, operator @ features]
    for _ in range(6):
        terms.append(2 * operator @ terms[-1] - terms[-2])
    expected = [np.vdot(features, term) for term in terms]
    # The recursion runs on an interval wider by a millionth.
    np.testing.assert_allclose(chebyshev_moments(graph, features, 8), expected, atol=1e-4 * np.square(features).sum())


@given(SEEDS, st.booleans(), st.integers(2, 12), st.integers(1, 40))
def test_bands_sum_to_the_whole(seed: int, bipartite: bool, num_bands: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    graph = build_random_graph(rng, bipartite=bipartite)
    features = rng.normal(size=(graph.shape[0], width)).astype(np.float32)
    bands = ChebyshevBands(graph, num_bands, rng)
    energies = bands.energies(features)
    assert energies.shape == bands.counts.shape == (num_bands,)
    assert energies.sum() == pytest.approx(np.square(features.astype(np.float64)).sum(), rel=1e-12)
    assert energies.min() > -1e-9 * energies.sum()
    assert bands.counts.sum() == pytest.approx(graph.shape[0], rel=1e-12)


@given(SEEDS, st.booleans(), st.integers(2, 15))
def test_bands_equal_their_windows_on_the_exact_spectrum(seed: int, bipartite: bool, num_bands: int) -> None:
    rng = np.random.default_rng(seed)
    graph = build_random_graph(rng, bipartite=bipartite)
    features = rng.normal(size=(graph.shape[0], 5))
    spectrum = exact_spectrum(graph)
    windows = window_coefficients(equal_width_edges(num_bands), MOMENTS_PER_BAND * num_bands)
    exact = window_responses(windows, spectrum.frequencies) @ knowledge_energies(spectrum.eigenvectors, features)
    found = ChebyshevBands(graph, num_bands, rng).energies(features)
    np.testing.assert_allclose(found, exact, atol=1e-10 * exact.sum())


def test_soft_boundaries_cost_little_on_a_graph_with_many_frequencies(rng: np.random.Generator) -> None:
    data = synthesize(SyntheticOptions(num_users=300, num_items=260, num_clusters=12, mean_interactions=12))
    graph = symmetric_normalization(bipartite_adjacency(data.train))
    features = rng.normal(size=(560, 30)).astype(np.float32)
    features += 3 * (graph @ features)
    hard, soft = equal_width_groups(exact_spectrum(graph), 15), ChebyshevBands(graph, 15, rng)
    np.testing.assert_array_equal(soft.bounds, hard.bounds)
    whole = np.square(features).sum()
    np.testing.assert_allclose(soft.energies(features) / whole, hard.energies(features) / whole, atol=0.02)
    np.testing.assert_allclose(soft.counts / 560, hard.counts / 560, atol=0.03)


def test_leakage_bounds_what_a_frequency_shows_two_bands_away() -> None:
    edge = symmetric_normalization(sp.csr_matrix(np.array([[0.0, 1.0], [1.0, 0.0]])))
    bands = ChebyshevBands(edge, 11, np.random.default_rng(0))
    assert 0 < bands.leakage < 1e-4
    energies = bands.energies(np.array([[1.0], [1.0]]))  # frequency 0 alone
    assert energies[0] == pytest.approx(2, rel=1e-3)
    assert np.abs(energies[2:]).max() <= 2 * bands.leakage


def test_the_same_seed_counts_the_same() -> None:
    graph = build_random_graph(np.random.default_rng(0))
    first, second, other = (ChebyshevBands(graph, 5, np.random.default_rng(seed)).counts for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_memory_does_not_grow_with_the_width_of_the_features() -> None:
    size = 20_000
    ring = sp.csr_matrix((np.ones(size), (np.arange(size), np.roll(np.arange(size), 1))), shape=(size, size))
    graph = symmetric_normalization(ring + ring.T)
    peaks = []
    for width in (BLOCK_COLUMNS, 8 * BLOCK_COLUMNS):
        features = np.ones((size, width), dtype=np.float32)
        tracemalloc.start()
        chebyshev_moments(graph, features, 6)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[0] < 5 * 8 * BLOCK_COLUMNS * size + 3 * 16 * graph.nnz
