from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import distill.graph.filters
from distill.errors import SettingError
from distill.graph.adjacency import laplacian
from distill.graph.filters import FilterRows, GraphFilter, linear_coefficients, quadratic_coefficients, response
from tests.distill.toy import build_random_graph

Dense = npt.NDArray[np.float64]


def dense_polynomial(normalized: sp.csr_matrix, coefficients: tuple[float, ...]) -> Dense:
    lap = laplacian(normalized).toarray().astype(np.float64)
    return sum(
        (c * np.linalg.matrix_power(lap, power) for power, c in enumerate(coefficients)),
        start=np.zeros_like(lap),
    )


def test_alpha_0_is_the_identity(rng: np.random.Generator) -> None:
    graph = build_random_graph(rng)
    for coefficients in (linear_coefficients(0.0), quadratic_coefficients(0.0)):
        np.testing.assert_array_equal(GraphFilter(graph, coefficients).matrix.toarray(), np.eye(graph.shape[0]))


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
def test_linear_mixes_a_row_with_its_neighbors(rng: np.random.Generator, alpha: float) -> None:
    graph = build_random_graph(rng)
    expected = (1 - alpha) * np.eye(graph.shape[0]) + alpha * graph.toarray()
    np.testing.assert_allclose(GraphFilter(graph, linear_coefficients(alpha)).matrix.toarray(), expected, atol=1e-6)


def test_quadratic_is_linear_twice(rng: np.random.Generator) -> None:
    graph = build_random_graph(rng)
    features = rng.normal(size=(graph.shape[0], 4)).astype(np.float32)
    once = GraphFilter(graph, linear_coefficients(0.3))
    twice = once.filter_all(once.filter_all(features))
    quadratic = GraphFilter(graph, quadratic_coefficients(0.3)).filter_all(features)
    assert quadratic.dtype == np.float32
    np.testing.assert_allclose(quadratic, twice, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=4))
def test_any_polynomial_equals_the_dense_one_and_has_its_response(seed: int, coefficients: list[float]) -> None:
    graph = build_random_graph(np.random.default_rng(seed))
    exact = dense_polynomial(graph, tuple(coefficients))
    np.testing.assert_allclose(GraphFilter(graph, coefficients).matrix.toarray(), exact, atol=2e-5)
    frequencies, basis = np.linalg.eigh(laplacian(graph).toarray().astype(np.float64))
    np.testing.assert_allclose((basis * response(coefficients, frequencies)) @ basis.T, exact, atol=1e-9)


def test_responses_by_hand() -> None:
    frequencies = np.array([0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(response(linear_coefficients(0.5), frequencies), [1, 0.75, 0.5, 0])
    np.testing.assert_allclose(response(quadratic_coefficients(0.5), frequencies), [1, 0.5625, 0.25, 0])
    np.testing.assert_allclose(response((2.0, 0.0, 0.0, 1.0), frequencies), [2, 2.125, 3, 10])


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 54), min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from([linear_coefficients(0.2), quadratic_coefficients(0.5), (0.0, 0.3, -0.2), (0.0,)]),
)
def test_batch_rows_equal_the_whole_matrix_with_gradients(
    seed: int, batch: list[int], bipartite: bool, coefficients: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(seed)
    graph = build_random_graph(rng, bipartite=bipartite)
    graph_filter = GraphFilter(graph, coefficients)
    features = torch.from_numpy(rng.normal(size=(55, 3)).astype(np.float32)).requires_grad_()
    exact_features = features.detach().double().requires_grad_()
    upstream = torch.from_numpy(rng.normal(size=(len(batch), 3)))

    found = graph_filter.rows(torch.tensor(batch)).apply(features)
    torch.autograd.backward(found, upstream.float())
    exact = (torch.from_numpy(dense_polynomial(graph, coefficients)) @ exact_features)[torch.tensor(batch)]
    torch.autograd.backward(exact, upstream)

    assert features.grad is not None
    assert exact_features.grad is not None
    np.testing.assert_allclose(found.detach().numpy(), exact.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(features.grad.numpy(), exact_features.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(
        found.detach().numpy(), graph_filter.filter_all(features.detach().numpy())[batch], atol=1e-5
    )


def test_the_gradient_equals_that_of_torchs_own_embedding_bag(rng: np.random.Generator) -> None:
    rows = GraphFilter(build_random_graph(rng), linear_coefficients(0.5)).rows(torch.tensor([3, 3, 0, 54, 17]))
    ours = torch.from_numpy(rng.normal(size=(55, 4)).astype(np.float32)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    upstream = torch.from_numpy(rng.normal(size=(5, 4)).astype(np.float32))
    torch.autograd.backward(rows.apply(ours), upstream)
    bag = F.embedding_bag(rows.neighbors, theirs, rows.offsets, mode="sum", per_sample_weights=rows.weights)
    torch.autograd.backward(bag, upstream)
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_gradient_passes_torchs_numerical_check() -> None:
    rows = FilterRows(
        torch.tensor([0, 2, 2, 1]), torch.tensor([0.5, -1.0, 2.0, 0.25]).double(), torch.tensor([0, 2, 2, 3])
    )
    features = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(rows.apply, (features,))


def test_localize_gives_the_same_rows_over_fewer_features(rng: np.random.Generator) -> None:
    graph = build_random_graph(rng)
    rows = GraphFilter(graph, linear_coefficients(0.5)).rows(torch.tensor([5, 40, 5]))
    features = torch.from_numpy(rng.normal(size=(55, 4)).astype(np.float32))
    entities, local = rows.localize()
    wanted = {5, 40, *graph[[5, 40]].indices.tolist()}
    assert entities.tolist() == sorted(wanted)
    torch.testing.assert_close(local.apply(features[entities]), rows.apply(features), rtol=0, atol=0)


def test_edge_dropout_keeps_self_weights_and_is_right_on_average(rng: np.random.Generator) -> None:
    graph_filter = GraphFilter(build_random_graph(rng), linear_coefficients(0.4))
    batch = torch.arange(55)
    whole = graph_filter.rows(batch)
    is_self = whole.neighbors == torch.repeat_interleave(batch, torch.from_numpy(np.diff(graph_filter.matrix.indptr)))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([graph_filter.rows(batch, keep_prob=0.3, generator=generator).weights for _ in range(2000)])
    assert int(is_self.sum()) == 55
    assert bool((draws[:, is_self] == whole.weights[is_self]).all())
    edges, kept = whole.weights[~is_self], draws[:, ~is_self]
    assert bool(((kept == 0) | torch.isclose(kept, edges / 0.3)).all())
    # Five standard errors of the mean of 2000 draws with variance (1 − p) / p.
    assert float((kept.mean(dim=0) / edges - 1).abs().max()) < 5 * np.sqrt(0.7 / 0.3 / 2000)


def test_edge_dropout_repeats_with_its_generator(rng: np.random.Generator) -> None:
    graph_filter = GraphFilter(build_random_graph(rng), linear_coefficients(0.4))
    one, again, other = (
        graph_filter.rows(torch.arange(55), keep_prob=0.5, generator=torch.Generator().manual_seed(seed)).weights
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_filter_moves_to_a_device_whole(rng: np.random.Generator) -> None:
    moved = GraphFilter(build_random_graph(rng), linear_coefficients(0.4)).to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}
    assert not moved.state_dict(), "the filter is rebuilt from the data, never checkpointed"


def test_no_coefficients_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(SettingError, match="at least one"):
        GraphFilter(build_random_graph(rng), ())


def test_a_polynomial_that_would_fill_memory_is_refused(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build_random_graph(rng)
    monkeypatch.setattr(distill.graph.filters, "MAX_NONZEROS", graph.nnz + graph.shape[0])
    assert GraphFilter(graph, linear_coefficients(0.5)).matrix.nnz == graph.nnz + graph.shape[0]
    with pytest.raises(SettingError, match="over the bound of 415"):
        GraphFilter(graph, quadratic_coefficients(0.5))
