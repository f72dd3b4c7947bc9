from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.methods.projector import NEGLIGIBLE_SHARE, Experts, GatedExperts

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
