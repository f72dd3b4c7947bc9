from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.backbones.lightgcn import LightGCN, LightGCNSettings
from distill.backbones.lpmf import LPMF, LPMFSettings
from distill.backbones.sampling import PairwiseSampler
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import bipartite_adjacency, laplacian, symmetric_normalization
from distill.graph.filters import GraphFilter, linear_coefficients
from tests.distill.toy import build_random
from tests.kits.backbone_kit import BackboneKit


class TestLPMF(BackboneKit):
    name = "lpmf"


@pytest.fixture
def data(rng: np.random.Generator) -> Interactions:
    return build_random(rng)


def test_embeddings_are_the_filtered_table(data: Interactions) -> None:
    model = LPMF.build(LPMFSettings(alpha=0.2), data, 4)
    adjacency = symmetric_normalization(bipartite_adjacency(data.train))
    expected = GraphFilter(adjacency, linear_coefficients(0.2)).filter_all(model.features.detach().numpy())
    np.testing.assert_allclose(torch.cat(model.final_embeddings()).numpy(), expected, rtol=1e-5, atol=1e-8)


def test_half_is_lightgcn_of_one_layer(data: Interactions) -> None:
    ours, theirs = LPMF.build(LPMFSettings(alpha=0.5), data, 4), LightGCN.build(LightGCNSettings(1), data, 4)
    with torch.no_grad():
        theirs.table.copy_(ours.table)
    torch.testing.assert_close(ours.embeddings(), theirs.embeddings())


def test_gradients_are_those_of_the_dense_filter(data: Interactions) -> None:
    torch.manual_seed(0)
    model = LPMF.build(LPMFSettings(alpha=0.4), data, 4)
    batch = next(PairwiseSampler(data.train, 40).epoch(np.random.default_rng(0)))
    (found,) = torch.autograd.grad(model.base_loss(batch, model.embeddings()), [model.table])
    lap = torch.from_numpy(laplacian(symmetric_normalization(bipartite_adjacency(data.train))).toarray())
    plain = BPRMF(data.num_users, data.num_items, 4)
    table = model.table.detach().requires_grad_()
    expected = torch.autograd.grad(plain.base_loss(batch, (torch.eye(len(lap)) - 0.4 * lap) @ table), [table])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(SettingError, match="alpha"):
        LPMFSettings(alpha)
