from __future__ import annotations

import pytest
import torch

from distill.backbones.lightgcn import INITIAL_STD, LightGCN, LightGCNSettings
from distill.data.interactions import Interactions
from distill.errors import SettingError
from tests.distill.backbones.recbole_golden import RecBoleGolden
from tests.kits.backbone_kit import BackboneKit


class TestLightGCN(BackboneKit):
    name = "lightgcn"


@pytest.fixture
def golden() -> RecBoleGolden:
    return RecBoleGolden("lightgcn")


@pytest.fixture
def model(golden: RecBoleGolden) -> LightGCN:
    built = LightGCN.build(LightGCNSettings(golden.model["num_layers"]), golden.interactions(), 4)
    golden.start(built)
    return built


def test_embeddings_are_those_of_recbole(golden: RecBoleGolden, model: LightGCN) -> None:
    torch.testing.assert_close(torch.cat(model.final_embeddings()), golden.embeddings)


def test_base_loss_is_that_of_recbole(golden: RecBoleGolden, model: LightGCN) -> None:
    loss = model.base_loss(golden.batch, model.embeddings()).item()
    assert loss == pytest.approx(golden.loss, rel=1e-5)


def test_features_are_the_raw_table(golden: RecBoleGolden, model: LightGCN) -> None:
    assert torch.equal(model.features.detach(), golden.table)


def test_the_graph_is_neither_trained_nor_kept_in_a_checkpoint(model: LightGCN) -> None:
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()} == {"table"}


def test_initial_embeddings_have_the_stated_spread(checkerboard: Interactions) -> None:
    torch.manual_seed(0)
    table = LightGCN.build(LightGCNSettings(), checkerboard, 200).features.detach().numpy()
    assert table.std() == pytest.approx(INITIAL_STD, rel=0.05)


def test_without_layers_the_name_is_bprmf() -> None:
    with pytest.raises(SettingError, match=r"num_layers: 0 is below 1; without layers use --backbone bprmf"):
        LightGCNSettings(num_layers=0)
