from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from distill.methods.features import feature_loss, strongest_directions
from distill.methods.projector import row_moments


@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_feature_loss_from_moments_equals_torchs_own(kind: str) -> None:
    torch.manual_seed(0)
    projected, targets = torch.randn(9, 7).double(), torch.randn(9, 7).double()
    inner, squared_norm = row_moments(projected, targets)
    if kind == "cosine":
        found = feature_loss(inner, squared_norm, targets.square().sum(dim=1), "cosine")
        expected = 1 - F.cosine_similarity(projected, targets)
    else:
        found = feature_loss(inner, squared_norm, targets.square().sum(dim=1), "l2")
        expected = F.mse_loss(projected, targets, reduction="none").sum(dim=1)
    torch.testing.assert_close(found, expected)


def test_a_zero_row_has_cosine_0_and_a_finite_gradient() -> None:
    projected = torch.zeros(1, 3, requires_grad=True)
    targets = torch.ones(1, 3)
    loss = feature_loss(*row_moments(projected, targets), targets.square().sum(dim=1), "cosine").sum()
    assert loss.item() == 1.0
    (gradient,) = torch.autograd.grad(loss, projected)
    assert bool(torch.isfinite(gradient).all())


def test_reduced_rows_are_those_of_the_truncated_svd() -> None:
    torch.manual_seed(0)
    rows = torch.randn(40, 9).double() @ torch.diag(torch.linspace(0.1, 3, 9).double())
    left, values, _ = torch.linalg.svd(rows, full_matrices=False)
    found = rows @ strongest_directions(torch.split(rows, 17), 4, "l2").double()
    expected = (left[:, :4] * values[:4]).flip(1)
    torch.testing.assert_close(found * torch.sign(found[:1]), expected * torch.sign(expected[:1]), rtol=1e-5, atol=1e-5)


def test_directions_for_the_cosine_do_not_depend_on_the_lengths_of_rows() -> None:
    torch.manual_seed(0)
    rows, lengths = torch.randn(40, 9).double(), 10 * torch.rand(40, 1).double() + 0.1
    one, two = (strongest_directions([scaled], 4, "cosine") for scaled in (lengths * rows, rows))
    torch.testing.assert_close(one.abs(), two.abs())
    assert not torch.allclose(strongest_directions([lengths * rows], 4, "l2").abs(), one.abs())
