from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.backbones.ials import IALS
from distill.baselines.ials import IALSSettings, penalties
from distill.data.interactions import Interactions
from distill.evaluation.protocol import Protocol, evaluate
from tests.distill.toy import build_random
from tests.kits.backbone_kit import BackboneKit


class TestIALS(BackboneKit):
    name = "ials"


def loss_of(model: IALS, data: Interactions) -> float:
    """The loss as the module states it, over the dense matrix."""
    users, items = (part.double().numpy() for part in model.final_embeddings())
    scores, taken = users @ items.T, data.train.toarray()
    total = (taken * (1 - scores) ** 2).sum() + model.settings.unobserved_weight * (scores**2).sum()
    for rows, sets in ((users, data.train), (items, data.train.T.tocsr())):
        total += float(penalties(sets, model.settings).double().numpy() @ (rows**2).sum(axis=1))
    return float(total)


@pytest.mark.parametrize("dim", [3, 20])
def test_an_epoch_returns_the_loss_and_never_raises_it(rng: np.random.Generator, dim: int) -> None:
    data = build_random(rng)
    model = IALS.build(IALSSettings(), data, dim)
    losses = [loss_of(model, data)]
    for _ in range(6):
        assert model.solve_epoch() == pytest.approx(loss_of(model, data), rel=1e-4)
        losses.append(loss_of(model, data))
    assert (np.diff(losses) <= 1e-4 * losses[0]).all()


def test_solving_ranks_the_held_out_diagonal_first(checkerboard: Interactions) -> None:
    torch.manual_seed(0)
    model = IALS.build(IALSSettings(), checkerboard, 2)
    for _ in range(4):
        model.solve_epoch()
    protocol = Protocol(mask="train+validation", cutoffs=(1,))
    assert evaluate(*model.final_embeddings(), checkerboard, protocol).metrics["Recall@1"] == 1.0
