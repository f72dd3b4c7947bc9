from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from distill.methods.features import FeatureLoss
from distill.methods.projector import (
    PROJECTORS,
    LinearProjector,
    ProjectorKind,
    build_projector,
    project_pair,
    row_moments,
)

KINDS: tuple[ProjectorKind, ...] = ("linear", "mlp", "experts")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["cosine", "l2"])
def test_loss_equals_that_of_the_explicit_projection_with_gradients(kind: ProjectorKind, loss: FeatureLoss) -> None:
    torch.manual_seed(3)
    projector = build_projector(kind, 4, 11).double()
    rows = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    targets, entities = torch.randn(9, 11, dtype=torch.float64), torch.tensor([8, 0, 3, 3, 5, 1])
    weights = torch.rand(6, dtype=torch.float64)
    found = projector.loss(rows, targets, targets.square().sum(dim=1), entities, weights, loss)
    projected = projector(rows)
    assert projected.shape == (6, 11)
    if loss == "cosine":
        losses = 1 - F.cosine_similarity(projected, targets[entities])
    else:
        losses = (projected - targets[entities]).square().sum(dim=1)
    explicit = weights @ losses
    assert found.item() == pytest.approx(explicit.item(), rel=1e-6)
    inputs = [rows, *projector.parameters()]
    for ours, expected in zip(*(torch.autograd.grad(3 * value, inputs) for value in (found, explicit)), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["cosine", "l2"])
def test_a_zero_row_has_a_finite_loss_and_gradient(loss: FeatureLoss) -> None:
    projector = LinearProjector(3, 5)
    rows = torch.zeros(2, 3, requires_grad=True)
    targets = torch.stack([torch.zeros(5), torch.ones(5)])
    found = projector.loss(rows, targets, targets.square().sum(dim=1), torch.arange(2), torch.ones(2), loss)
    assert found.item() == {"cosine": 2.0, "l2": 5.0}[loss]
    assert all(bool(torch.isfinite(part).all()) for part in torch.autograd.grad(found, [rows, projector.weight]))


def test_bfloat16_teacher_rows_change_the_loss_little() -> None:
    torch.manual_seed(0)
    projector = LinearProjector(20, 400)
    rows, targets = torch.randn(500, 20), torch.randn(700, 400)
    entities, weights = torch.randint(0, 700, (500,)), torch.ones(500)
    results = []
    for values in (targets, targets.bfloat16()):
        own = rows.clone().requires_grad_()
        loss = projector.loss(own, values, targets.square().sum(dim=1), entities, weights, "cosine")
        results.append([loss, *torch.autograd.grad(loss, [own, projector.weight])])
    exact, rounded = results
    assert rounded[0].item() == pytest.approx(exact[0].item(), rel=1e-3)
    for one, two in zip(exact[1:], rounded[1:], strict=True):
        assert float((one - two).norm() / one.norm()) < 0.01


def test_row_moments_by_hand() -> None:
    inner, squared_norm = row_moments(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[4.0, 5.0], [6.0, -1.0]]))
    assert inner.tolist() == [14.0, -3.0]
    assert squared_norm.tolist() == [5.0, 9.0]


def test_a_linear_projector_is_linear_and_says_so() -> None:
    torch.manual_seed(0)
    projector = LinearProjector(3, 5)
    one, two = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(projector(2 * one + two), 2 * projector(one) + projector(two))
    assert projector.is_linear
    assert not build_projector("mlp", 3, 5).is_linear
    assert not build_projector("experts", 3, 5).is_linear


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_the_initial_weights(kind: ProjectorKind) -> None:
    states = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        states.append(torch.cat([value.flatten() for value in build_projector(kind, 3, 5).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_experts_are_as_wide_as_the_teacher_and_draw_their_dropout_from_the_generator() -> None:
    torch.manual_seed(0)
    projector = build_projector("experts", 3, 5, num_experts=4, dropout=0.5)
    assert [tuple(value.shape) for value in projector.parameters()] == [(4, 3, 5), (4, 5), (4, 5, 5), (4, 5)]
    rows, targets = torch.randn(6, 3), torch.randn(6, 5)
    pairs = (rows, targets, targets.square().sum(dim=1), torch.arange(6), torch.ones(6))
    without = (projector(rows) - targets).square().sum()
    torch.testing.assert_close(projector.loss(*pairs, "l2"), without)
    one, two = (projector.loss(*pairs, "l2", torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.item() != pytest.approx(without.item())


@pytest.mark.parametrize("kind", KINDS)
def test_a_projected_pair_has_the_inner_products_of_the_projected_rows(kind: ProjectorKind) -> None:
    torch.manual_seed(0)
    user_projector, item_projector = (build_projector(kind, 3, 7) for _ in range(2))
    users, items = torch.randn(4, 3), torch.randn(5, 3)
    left, right = project_pair(user_projector, item_projector, users, items)
    torch.testing.assert_close(left @ right.T, user_projector(users) @ item_projector(items).T)
    assert left.shape[1] == (3 if kind == "linear" else 7)


def test_every_registered_projector_is_tested() -> None:
    assert set(PROJECTORS) == set(KINDS)
