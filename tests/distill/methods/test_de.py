from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import Teacher
from distill.methods.de import DistillationExperts, DistillationExpertsSettings
from distill.methods.projector import GatedExperts
from tests.distill.toy import build_random, build_step
from tests.kits.method_kit import MethodKit

SMALL = DistillationExpertsSettings(num_experts=3, distillation_weight=0.5)


class TestDistillationExperts(MethodKit):
    name = "de"
    settings = SMALL


def build(data: Interactions, settings: DistillationExpertsSettings) -> tuple[DistillationExperts, BPRMF, Teacher]:
    torch.manual_seed(4)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    method = DistillationExperts.build(settings, data, student, teacher)
    method.begin_epoch(student, np.random.default_rng(0))
    return method, student, teacher


def public_loss(
    selected: GatedExperts, rows: torch.Tensor, targets: torch.Tensor, temperature: float, generator: torch.Generator
) -> torch.Tensor:
    """The formula as the public code writes it, with a (B, d_t, K) tensor of all experts' outputs."""
    gate = torch.softmax(targets @ selected.gate.weight.T + selected.gate.bias, dim=1)
    gumbel = -torch.log(torch.empty_like(gate).exponential_(generator=generator))
    selection = torch.softmax((torch.log(gate + 1e-10) + gumbel) / temperature, dim=1)
    experts = selected.experts
    outputs = [
        torch.relu(rows @ experts.hidden_weight[k] + experts.hidden_bias[k]) @ experts.output_weight[k]
        + experts.output_bias[k]
        for k in range(gate.shape[1])
    ]
    mixed = (torch.stack(outputs, dim=2) * selection[:, None, :]).sum(dim=2)
    return ((targets - mixed) ** 2).sum(dim=1)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_loss_equals_the_public_formula_with_gradients(rng: np.random.Generator, temperature: float) -> None:
    data = build_random(rng)
    method, student, teacher = build(data, SMALL)
    method.temperature = temperature
    batch = Batch(torch.tensor([3, 3, 7, 0]), torch.tensor([0, 2, 2, 9]), torch.tensor([2, 5, 6, 9]))
    found = method.distillation_loss(build_step(batch, student, seed=3))

    generator, table = torch.Generator().manual_seed(3), student.table
    users, items = torch.tensor([0, 3, 7]), torch.tensor([0, 2, 5, 6, 9])
    weights = torch.tensor([0.5, 1.0, 0.5, 0.5, 1.0])
    user = public_loss(method.user_experts, table[users], teacher.users[users], temperature, generator)
    rows = table[data.num_users + items]
    item = public_loss(method.item_experts, rows, teacher.items[items], temperature, generator)
    expected = 0.5 * (user.sum() + weights @ item)

    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    inputs = [table, *method.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad(value, inputs) for value in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6 + 1e-5 * float(theirs.abs().max()))


def test_a_single_expert_is_plain_feature_distillation_through_it(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, teacher = build(data, DistillationExpertsSettings(num_experts=1, distillation_weight=1.0))
    batch = Batch(torch.tensor([3]), torch.tensor([8]), torch.tensor([8]))
    user, item = student.table[[3]], student.table[[data.num_users + 8]]
    expected = (teacher.users[3] - method.user_experts.experts.mean(user)).square().sum()
    expected = expected + (teacher.items[8] - method.item_experts.experts.mean(item)).square().sum()
    torch.testing.assert_close(method.distillation_loss(build_step(batch, student)), expected)


@pytest.mark.parametrize("items", [([4], [4]), ([4, 4], [8, 8])])
def test_a_batch_of_one_user_and_duplicate_rows_count_once(
    rng: np.random.Generator, items: tuple[list[int], list[int]]
) -> None:
    data = build_random(rng)
    method, student, _ = build(data, SMALL)
    positives, negatives = (torch.tensor(side) for side in items)
    once = Batch(torch.tensor([5]), positives[:1], negatives[:1])
    loss = method.distillation_loss(build_step(once, student))
    repeated = Batch(torch.tensor([5]).repeat(len(positives)), positives, negatives)
    assert torch.equal(method.distillation_loss(build_step(repeated, student)), loss)
    assert bool(torch.isfinite(loss))


def test_what_is_drawn_of_a_batch_stands_for_the_rest(rng: np.random.Generator) -> None:
    data = build_random(rng)
    batch = Batch(torch.tensor([3, 5, 7, 0]), torch.tensor([0, 2, 3, 9]), torch.tensor([2, 5, 6, 9]))
    losses = {}
    for most in (None, 4, 100):
        settings = DistillationExpertsSettings(num_experts=1, distillation_weight=1.0, max_rows=most)
        method, student, _ = build(data, settings)
        draws = 400 if most == 4 else 1
        losses[most] = torch.stack(
            [method.distillation_loss(build_step(batch, student, seed)) for seed in range(draws)]
        )
    torch.testing.assert_close(losses[100], losses[None])
    assert len(set(losses[4].tolist())) > 20, "other rows in other steps"
    assert losses[4].mean().item() == pytest.approx(losses[None].item(), rel=0.05)


def test_experts_are_half_way_between_the_dimensions(rng: np.random.Generator) -> None:
    method, _, _ = build(build_random(rng), DistillationExpertsSettings(num_experts=7))
    for selected in (method.user_experts, method.item_experts):
        assert selected.experts.hidden_weight.shape == (7, 4, 6)
        assert selected.experts.output_weight.shape == (7, 6, 9)


def test_temperature_falls_geometrically_and_a_checkpoint_keeps_its_place(rng: np.random.Generator) -> None:
    settings = DistillationExpertsSettings(num_experts=2, temperature=1.0, end_temperature=1e-4, anneal_epochs=4)
    data = build_random(rng)
    method, student, teacher = build(data, settings)
    found = [method.temperature]
    for _ in range(2):
        method.begin_epoch(student, rng)
        found.append(method.temperature)
    resumed = DistillationExperts.build(settings, data, student, teacher)
    resumed.load_state_dict(method.state_dict())
    for _ in range(3):
        resumed.begin_epoch(student, rng)
        found.append(resumed.temperature)
    assert found == pytest.approx([1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-4])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"distillation_weight": -0.1}, "distillation_weight"),
        ({"num_experts": 0}, "num_experts"),
        ({"anneal_epochs": 0}, "anneal_epochs"),
        ({"max_rows": 1}, "max_rows"),
        ({"end_temperature": 0.0}, "end_temperature"),
        ({"temperature": 0.1, "end_temperature": 0.2}, "end_temperature"),
        ({"preference_weight": -1.0}, "preference_weight"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        DistillationExpertsSettings(**wrong)
