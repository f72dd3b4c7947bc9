from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill.methods.features import FeatureLoss
from distill.methods.projector import (
    NEGLIGIBLE_SHARE,
    Experts,
    ExpertsProjector,
    GatedExperts,
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


def test_every_projector_is_tested() -> None:
    assert set(get_args(ProjectorKind)) == set(KINDS)


@pytest.mark.parametrize(("kind", "hidden_dim", "expected"), [("mlp", None, 4), ("mlp", 9, 9), ("experts", None, 7)])
def test_hidden_layers_are_as_wide_as_in_the_public_code_unless_told(
    kind: ProjectorKind, hidden_dim: int | None, expected: int
) -> None:
    """Half of the teacher's width (rounded up) for the MLP of 2024, all of it for the experts of 2025."""
    projector = build_projector(kind, 3, 7, hidden_dim)
    if isinstance(projector, ExpertsProjector):
        assert projector.experts.hidden_weight.shape == (5, 3, expected)
    else:
        assert [tuple(value.shape) for value in projector.parameters()] == [
            (expected, 3),
            (expected,),
            (7, expected),
            (7,),
        ]


DIMS, NUM_EXPERTS = (3, 5, 4), 6


@pytest.fixture
def experts() -> Experts:
    torch.manual_seed(0)
    return Experts(DIMS, NUM_EXPERTS, dropout=0.4).double()


def expert(experts: Experts, k: int, rows: torch.Tensor) -> torch.Tensor:
    """One expert written as two `nn.Linear`."""
    first, second = nn.Linear(3, 5).double(), nn.Linear(5, 4).double()
    parameters = (
        experts.hidden_weight[k].T,
        experts.hidden_bias[k],
        experts.output_weight[k].T,
        experts.output_bias[k],
    )
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    found: torch.Tensor = torch.func.functional_call(
        nn.Sequential(first, nn.ReLU(), second), dict(zip(names, parameters, strict=True)), rows
    )
    return found


def assert_same_gradients(one: torch.Tensor, two: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    torch.testing.assert_close(one, two)
    probe = torch.randn_like(one)
    for ours, theirs in zip(*(torch.autograd.grad((value * probe).sum(), inputs) for value in (one, two)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_mean_is_the_mean_of_separate_networks(experts: Experts) -> None:
    rows = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    explicit = torch.stack([expert(experts, k, rows) for k in range(NUM_EXPERTS)]).mean(dim=0)
    assert_same_gradients(experts.mean(rows), explicit, [rows, *experts.parameters()])


def test_a_mixture_is_the_weighted_sum_of_separate_networks(experts: Experts) -> None:
    rows = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    shares = torch.softmax(torch.randn(7, NUM_EXPERTS, dtype=torch.float64), dim=1).requires_grad_()
    explicit = torch.stack([shares[:, k, None] * expert(experts, k, rows) for k in range(NUM_EXPERTS)]).sum(dim=0)
    assert_same_gradients(experts(rows, shares), explicit, [rows, shares, *experts.parameters()])


def test_a_row_passes_only_through_experts_with_a_share(experts: Experts) -> None:
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    shares = torch.zeros(4, NUM_EXPERTS, dtype=torch.float64)
    shares[torch.arange(4), torch.tensor([2, 2, 0, 5])] = 1.0
    shares[:, 1] = NEGLIGIBLE_SHARE / 2
    mixed = experts(rows, shares)
    for row, k in enumerate((2, 2, 0, 5)):
        torch.testing.assert_close(mixed[row], expert(experts, k, rows)[row], atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(mixed.sum(), [experts.hidden_weight])
    assert gradient.flatten(1).any(dim=1).tolist() == [True, False, True, False, False, True]


def test_dropout_drops_inputs_of_both_layers_with_the_given_generator(experts: Experts) -> None:
    rows = torch.randn(7, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    found, again = (experts.mean(rows, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(found, again)
    total = torch.zeros(7, 4, dtype=torch.float64)
    for k in range(NUM_EXPERTS):
        masks = [torch.empty(7, width, dtype=torch.float64) for width in (3, 5)]
        kept_rows, kept_hidden = (mask.bernoulli_(0.6, generator=generator) / 0.6 for mask in masks)
        hidden = torch.relu((rows * kept_rows) @ experts.hidden_weight[k] + experts.hidden_bias[k]) * kept_hidden
        total += hidden @ experts.output_weight[k] + experts.output_bias[k]
    torch.testing.assert_close(found, total / NUM_EXPERTS)
    assert not torch.allclose(found, experts.mean(rows))


def test_the_gate_chooses_by_the_teachers_row_as_the_temperature_falls() -> None:
    torch.manual_seed(0)
    selected = GatedExperts(3, 8, NUM_EXPERTS)
    rows, targets = torch.randn(9, 3), torch.randn(9, 8)
    noise = -torch.empty(9, NUM_EXPERTS).exponential_(generator=torch.Generator().manual_seed(1)).log()
    winners = (torch.log_softmax(selected.gate(targets), dim=1) + noise).argmax(dim=1)
    assert len(torch.unique(winners)) > 1
    cold = selected(rows, targets, 1e-10, torch.Generator().manual_seed(1))
    torch.testing.assert_close(cold, selected.experts(rows, torch.eye(NUM_EXPERTS)[winners]))
    assert torch.equal(selected.choose(targets), selected.gate(targets).argmax(dim=1))
    hot = selected(rows, targets, 1e6, torch.Generator().manual_seed(1))
    torch.testing.assert_close(hot, selected.experts.mean(rows), atol=1e-4, rtol=1e-4)


def test_the_noise_is_gumbel_noise() -> None:
    """An expert is chosen with the probability that the gate gives it."""
    torch.manual_seed(0)
    selected = GatedExperts(1, 4, 3)
    target = torch.randn(1, 4)
    with torch.no_grad():
        selected.experts.hidden_weight.zero_()
        selected.experts.hidden_bias.zero_()
        selected.experts.output_bias.copy_(torch.eye(3, 4))
        chosen = selected(torch.zeros(20_000, 1), target.expand(20_000, -1), 1e-10, torch.Generator().manual_seed(0))
        expected = torch.softmax(selected.gate(target), dim=1)[0]
    torch.testing.assert_close(chosen.mean(dim=0)[:3], expected, atol=0.01, rtol=0)
