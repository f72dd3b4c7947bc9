from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF, INITIAL_STD
from distill.backbones.sampling import Batch
from tests.kits.backbone_kit import BackboneKit


class TestBPRMF(BackboneKit):
    name = "bprmf"


def test_base_loss_equals_the_plain_formula() -> None:
    torch.manual_seed(0)
    model = BPRMF(3, 4, 5)
    with torch.no_grad():
        model.table.mul_(100)
    users, items = (part.double().numpy() for part in model.final_embeddings())
    triples = [(0, 1, 2), (2, 3, 0), (0, 1, 3)]
    expected = sum(
        math.log(1 + math.exp(-float(users[user] @ (items[positive] - items[negative]))))
        for user, positive, negative in triples
    )
    batch = Batch(*(torch.tensor(column) for column in zip(*triples, strict=True)))
    assert model.base_loss(batch, model.embeddings()).item() == pytest.approx(expected, rel=1e-5)


def test_initial_embeddings_have_the_stated_spread() -> None:
    torch.manual_seed(0)
    table = BPRMF(500, 500, 20).features.detach().numpy()
    assert table.std() == pytest.approx(INITIAL_STD, rel=0.05)
    assert abs(float(np.mean(table))) < INITIAL_STD / 20


def test_final_embeddings_are_the_rows_of_the_table() -> None:
    model = BPRMF(3, 4, 5)
    assert torch.equal(torch.cat(model.final_embeddings()), model.table.detach())
