from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.graph.adjacency import bipartite_adjacency, symmetric_normalization
from distill.graph.propagation import Propagation, SparseMatrix
from tests.distill.toy import build_random


def build_graph(seed: int) -> sp.csr_matrix:
    return symmetric_normalization(bipartite_adjacency(build_random(np.random.default_rng(seed), 7, 9, 5).train))


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_propagation_and_its_gradient_are_the_dense_polynomial(seed: int, num_layers: int) -> None:
    graph = build_graph(seed)
    dense = torch.from_numpy(graph.toarray())
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(dense), 3, generator=generator, requires_grad=True)
    weights = torch.randn(len(dense), 3, generator=generator)
    expected, power = features, features
    for _ in range(num_layers):
        power = dense @ power
        expected = expected + power
    expected = expected / (num_layers + 1)
    found = Propagation(graph, num_layers)(features)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad((found * weights).sum(), features)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * weights).sum(), features)[0])


@given(st.integers(0, 2**31))
def test_products_are_those_of_the_dense_matrix(seed: int) -> None:
    matrix = build_random(np.random.default_rng(seed), 6, 8, 5).train
    dense = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(SparseMatrix(matrix).multiply(dense), torch.from_numpy(matrix.toarray()) @ dense)


def test_an_empty_matrix_multiplies_to_zeros() -> None:
    assert not SparseMatrix(sp.csr_matrix((2, 3), dtype=np.float32)).multiply(torch.ones(3, 4)).any()


def test_a_gradient_of_expanded_storage_is_accepted() -> None:
    graph = build_graph(0)
    features = torch.randn(graph.shape[0], 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(Propagation(graph, 2)(features).sum(), features)
    ones = np.ones((graph.shape[0], 2), dtype=np.float32)
    expected = (ones + graph @ ones + graph @ (graph @ ones)) / 3
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5)


def test_nothing_of_a_graph_is_kept_in_a_checkpoint_or_trained() -> None:
    propagation = Propagation(build_graph(0), 2)
    assert not propagation.state_dict()
    assert not list(propagation.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_the_cpu() -> None:
    graph = build_graph(0)
    features = torch.randn(graph.shape[0], 16)
    here, there = Propagation(graph, 3), Propagation(graph, 3).to("cuda")
    torch.testing.assert_close(there(features.to("cuda")).cpu(), here(features))
