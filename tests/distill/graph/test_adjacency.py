from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

import distill.graph.adjacency
from distill.graph.adjacency import (
    bipartite_adjacency,
    build_graph,
    cooccurrence_adjacency,
    cooccurrence_blocks,
    laplacian,
    symmetric_normalization,
    top_cooccurrence,
    top_k_per_row,
)
from tests.distill.toy import build_random

Dense = npt.NDArray[np.float32]


def dense_top_cooccurrence(incidence: Dense, num_neighbors: int, *, reference: bool) -> Dense:
    """The definition, dense: rows ordered by count, ties to the lower row number."""
    counts = incidence @ incidence.T
    size = len(counts)
    graph = np.zeros_like(counts)
    if not reference:
        np.fill_diagonal(counts, 0)
    for row in range(size):
        order = np.argsort(-counts[row], kind="stable")
        chosen = (
            order[1 : num_neighbors + 1] if reference else order[:num_neighbors][counts[row, order[:num_neighbors]] > 0]
        )
        graph[row, chosen] = 1
    return np.asarray((graph + graph.T) / 2, dtype=np.float32)


def public_code(incidence: Dense, num_neighbors: int) -> Dense:
    """What the public code does (KDs, FreqD): torch.topk over dense counts, column 0 dropped as "self"."""
    counts = torch.from_numpy(incidence @ incidence.T)
    neighbors = counts.topk(num_neighbors + 1, dim=1).indices[:, 1:]
    graph = torch.zeros_like(counts).scatter_(1, neighbors, 1.0)
    both: Dense = ((graph + graph.T) / 2).numpy()
    return both


@st.composite
def incidences(draw: st.DrawFn) -> Dense:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    bits = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    return np.array(bits, dtype=np.float32).reshape(rows, columns)


def test_bipartite_by_hand() -> None:
    adjacency = bipartite_adjacency(sp.csr_matrix(np.array([[1, 0, 1], [0, 1, 0]], dtype=np.float32)))
    np.testing.assert_array_equal(
        adjacency.toarray(),
        [[0, 0, 1, 0, 1], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0]],
    )


def test_top_cooccurrence_by_hand() -> None:
    # Rows 0 and 1 share two columns, 0 and 2 one, row 3 shares nothing.
    incidence = sp.csr_matrix(np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32))
    one = top_cooccurrence(incidence, 1).toarray()
    np.testing.assert_array_equal(one, [[0, 1, 0.5, 0], [1, 0, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 0]])
    two = top_cooccurrence(incidence, 2).toarray()
    np.testing.assert_array_equal(two, [[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])


def test_ties_go_to_the_lower_row() -> None:
    graph = top_cooccurrence(sp.csr_matrix(np.ones((4, 2), dtype=np.float32)), 1).toarray()
    np.testing.assert_array_equal(graph, [[0, 1, 0.5, 0.5], [1, 0, 0, 0], [0.5, 0, 0, 0], [0.5, 0, 0, 0]])


def test_cooccurrence_spans_users_and_items_without_edges_between(rng: np.random.Generator) -> None:
    train = build_random(rng).train
    graph = cooccurrence_adjacency(train, 3).toarray()
    np.testing.assert_array_equal(graph[:30, :30], top_cooccurrence(train, 3).toarray())
    np.testing.assert_array_equal(graph[30:, 30:], top_cooccurrence(train.T.tocsr(), 3).toarray())
    assert not graph[:30, 30:].any()
    assert not graph[30:, :30].any()


def test_the_graph_of_a_data_set_is_the_normalised_one_of_its_training_split(rng: np.random.Generator) -> None:
    data = build_random(rng)
    train = data.train
    for graph, adjacency in (
        (build_graph(data), bipartite_adjacency(train)),
        (build_graph(data, "cooccurrence", 3), cooccurrence_adjacency(train, 3)),
        (build_graph(data, "cooccurrence", 3, reference=True), cooccurrence_adjacency(train, 3, reference=True)),
    ):
        np.testing.assert_array_equal(graph.toarray(), symmetric_normalization(adjacency).toarray())


@given(incidences(), st.integers(1, 5))
def test_top_cooccurrence_equals_its_dense_definition(incidence: Dense, num_neighbors: int) -> None:
    graph = top_cooccurrence(sp.csr_matrix(incidence), num_neighbors)
    np.testing.assert_array_equal(graph.toarray(), dense_top_cooccurrence(incidence, num_neighbors, reference=False))


@given(incidences(), st.integers(1, 5))
def test_no_self_loop_no_stranger_and_symmetric(incidence: Dense, num_neighbors: int) -> None:
    graph = top_cooccurrence(sp.csr_matrix(incidence), num_neighbors).toarray()
    assert not graph.diagonal().any()
    assert not graph[incidence @ incidence.T == 0].any()
    np.testing.assert_array_equal(graph, graph.T)


@given(incidences(), st.integers(1, 5))
def test_reference_equals_its_dense_definition_ties_and_padding_included(incidence: Dense, num_neighbors: int) -> None:
    graph = top_cooccurrence(sp.csr_matrix(incidence), num_neighbors, reference=True)
    np.testing.assert_array_equal(graph.toarray(), dense_top_cooccurrence(incidence, num_neighbors, reference=True))


def test_reference_equals_the_public_code_where_no_tie_is_ambiguous() -> None:
    rng = np.random.default_rng(1)
    incidence = (rng.random((8, 4000)) < np.linspace(0.2, 0.9, 8)[:, None]).astype(np.float32)
    counts = incidence @ incidence.T
    assert all(len(set(row)) == len(row) for row in counts.tolist())
    ours = top_cooccurrence(sp.csr_matrix(incidence), 3, reference=True).toarray()
    np.testing.assert_array_equal(ours, public_code(incidence, 3))


def test_reference_keeps_the_traps_of_the_public_code() -> None:
    tied = sp.csr_matrix(np.ones((3, 2), dtype=np.float32))
    assert top_cooccurrence(tied, 1, reference=True).toarray().diagonal().any()
    strangers = sp.csr_matrix(np.eye(3, dtype=np.float32))
    assert top_cooccurrence(strangers, 1, reference=True).nnz > 0
    assert top_cooccurrence(tied, 1).toarray().diagonal().sum() == 0
    assert top_cooccurrence(strangers, 1).nnz == 0


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("max_products", [1, 300])
def test_the_block_size_never_changes_the_graph(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, max_products: int, reference: bool
) -> None:
    train = build_random(rng).train
    whole = cooccurrence_adjacency(train, 4, reference=reference)
    monkeypatch.setattr(distill.graph.adjacency, "BLOCK_PRODUCTS", max_products)
    in_blocks = cooccurrence_adjacency(train, 4, reference=reference)
    np.testing.assert_array_equal(in_blocks.toarray(), whole.toarray())


@pytest.mark.parametrize("max_products", [1, 300, 10**6])
def test_blocks_count_every_row_once_within_their_bound(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, max_products: int
) -> None:
    train = build_random(rng).train
    monkeypatch.setattr(distill.graph.adjacency, "BLOCK_PRODUCTS", max_products)
    blocks = list(cooccurrence_blocks(train))
    starts = np.cumsum([0, *(block.shape[0] for _, block in blocks)])
    assert [start for start, _ in blocks] == starts[:-1].tolist()
    np.testing.assert_array_equal(sp.vstack([block for _, block in blocks]).toarray(), (train @ train.T).toarray())
    degree = np.asarray(train.sum(axis=0)).ravel()
    for start, block in blocks:
        products = (train[start : start + block.shape[0]] @ degree).sum()
        assert products <= max_products or block.shape[0] == 1


@given(incidences(), incidences(), st.integers(1, 8))
def test_top_k_per_row_equals_a_stable_sort(one: Dense, other: Dense, num_kept: int) -> None:
    width = min(one.shape[1], other.shape[1])
    matrix = one[:, :width] @ other[:, :width].T
    kept = top_k_per_row(sp.csr_matrix(matrix), num_kept)
    expected = np.zeros_like(matrix)
    for row, values in enumerate(matrix):
        chosen = np.argsort(-values, kind="stable")[:num_kept]
        expected[row, chosen] = values[chosen]
    np.testing.assert_array_equal(kept.toarray(), expected)
    assert kept.has_sorted_indices


def test_symmetric_normalization_by_hand() -> None:
    adjacency = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
    root = 1 / np.sqrt(2)
    normalized = symmetric_normalization(sp.csr_matrix(adjacency))
    np.testing.assert_allclose(normalized.toarray(), adjacency * root, rtol=1e-6)
    assert normalized.dtype == np.float32


@given(incidences())
def test_frequencies_lie_in_0_to_2(incidence: Dense) -> None:
    user_items = sp.csr_matrix(incidence)
    for adjacency in (bipartite_adjacency(user_items), cooccurrence_adjacency(user_items, 2)):
        frequencies = np.linalg.eigvalsh(laplacian(symmetric_normalization(adjacency)).toarray().astype(np.float64))
        assert frequencies.min() >= -1e-6
        assert frequencies.max() <= 2 + 1e-6
        # Each connected part with an edge has one frequency 0; a vertex without edges has frequency 1.
        parts, labels = connected_components(adjacency, directed=False)
        with_edges = parts - int((np.bincount(labels) == 1).sum())
        assert int((np.abs(frequencies) < 1e-6).sum()) == with_edges
