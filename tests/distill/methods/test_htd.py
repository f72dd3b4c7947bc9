from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import Teacher
from distill.methods.htd import TopologyDistillation, TopologyDistillationSettings, topology_loss
from tests.distill.toy import build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit


class TestTopologyDistillation(MethodKit):
    name = "htd"
    settings = TopologyDistillationSettings(num_groups=3, distillation_weight=0.5)


def build(data: Interactions, settings: TopologyDistillationSettings) -> tuple[TopologyDistillation, BPRMF, Teacher]:
    torch.manual_seed(4)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    return TopologyDistillation.build(settings, data, student, teacher), student, teacher


def pair_by_pair(rows: torch.Tensor, targets: torch.Tensor, groups: list[int]) -> torch.Tensor:
    """Both sums of the module's formula, one pair at a time."""
    total = rows.new_zeros(())
    for i in range(len(groups)):
        for j in range(len(groups)):
            if groups[i] == groups[j]:
                own, known = (F.cosine_similarity(side[i], side[j], dim=0) for side in (rows, targets))
                total = total + (own - known) ** 2
    for group in set(groups):
        members = [i for i, other in enumerate(groups) if other == group]
        means = [side[members].mean(dim=0).detach() for side in (rows, targets)]
        for i in range(len(groups)):
            own, known = (
                F.cosine_similarity(m, side[i], dim=0) for m, side in zip(means, (rows, targets), strict=True)
            )
            total = total + (own - known) ** 2
    return total


@pytest.mark.parametrize("groups", [[0, 2, 0, 5, 2, 2], [1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5]])
def test_topology_loss_equals_its_definition_pair_by_pair_with_gradients(groups: list[int]) -> None:
    torch.manual_seed(0)
    rows = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(6, 7, dtype=torch.float64)
    found, expected = topology_loss(rows, targets, torch.tensor(groups)), pair_by_pair(rows, targets, groups)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, rows)[0] for value in (found, expected)))


def test_topology_of_a_rotated_and_scaled_teacher_is_no_loss() -> None:
    """Only angles count, so a student that has them has nothing to learn, whatever its dimension."""
    torch.manual_seed(0)
    rows = torch.randn(8, 3, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64)).Q
    groups = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    assert topology_loss(rows, 4.0 * rows @ rotation.T, groups).item() < 1e-20


def test_topology_loss_by_hand_and_of_zero_rows() -> None:
    rows, targets = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [4.0, 0.0]])
    # In one group: cosine 0 for 1, both ways; to the means (½, 1) and (3.5, 0): cosines √⅕ and √⅘ for 1 and 1.
    expected = 2 * 1.0 + (0.2**0.5 - 1) ** 2 + (0.8**0.5 - 1) ** 2
    assert topology_loss(rows, targets, torch.tensor([4, 4])).item() == pytest.approx(expected, rel=1e-6)
    nothing = torch.zeros(2, 2, requires_grad=True)
    loss = topology_loss(nothing, targets, torch.tensor([0, 1]))
    assert bool(torch.isfinite(torch.autograd.grad(loss, nothing)[0]).all())


def test_loss_mixes_the_topology_and_the_experts(rng: np.random.Generator) -> None:
    data = build_random(rng)
    settings = TopologyDistillationSettings(num_groups=3, distillation_weight=2.0, topology_share=0.25)
    method, student, teacher = build(data, settings)
    step = build_step(whole_batch(data), student, seed=3)
    found = method.distillation_loss(step)

    generator = torch.Generator().manual_seed(3)
    users, items = (torch.randperm(count, generator=generator) for count in (data.num_users, data.num_items))
    groups, group_loss = [], torch.zeros(())
    rows = torch.cat([student.table[users], student.table[data.num_users + items]])
    targets = torch.cat([teacher.users[users], teacher.items[items]])
    sides = (
        (method.user_experts, users, teacher.users, 0),
        (method.item_experts, items, teacher.items, data.num_users),
    )
    for experts, chosen, known, first in sides:
        projected = experts(student.table[first + chosen], known[chosen], 0.1, generator)
        group_loss = group_loss + (known[chosen] - projected).square().sum()
        groups += [int(first > 0) * 3 + int(group) for group in experts.gate(known[chosen]).argmax(dim=1)]
    expected = 2.0 * (0.25 * topology_loss(rows, targets, torch.tensor(groups)) + 0.75 * group_loss)
    torch.testing.assert_close(found, expected)


def test_users_and_items_are_never_in_one_group(rng: np.random.Generator) -> None:
    """A user and an item alone: each is its group's mean, and their similarity counts twice, not four times."""
    data = build_random(rng)
    settings = TopologyDistillationSettings(num_groups=1, topology_share=1.0, distillation_weight=1.0)
    method, student, teacher = build(data, settings)
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    own = F.cosine_similarity(student.table[0], student.table[data.num_users], dim=0)
    known = F.cosine_similarity(teacher.users[0], teacher.items[0], dim=0)
    torch.testing.assert_close(method.distillation_loss(build_step(batch, student)), 2 * (own - known) ** 2)


def test_rows_of_a_step_are_bounded_and_drawn_anew(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(data, TopologyDistillationSettings(num_groups=2, max_rows=12))
    step = build_step(whole_batch(data), student)
    seen = []
    for _ in range(2):
        (gradient,) = torch.autograd.grad(method.distillation_loss(step), [student.table])
        touched = gradient.any(dim=1).nonzero().ravel()
        assert (int((touched < data.num_users).sum()), len(touched)) == (6, 12)
        seen.append(touched.tolist())
    assert seen[0] != seen[1]


def test_a_batch_of_one_user_and_duplicate_rows_count_once(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(data, TopologyDistillationSettings(num_groups=2))
    once = Batch(torch.tensor([5]), torch.tensor([4]), torch.tensor([9]))
    twice = Batch(torch.tensor([5, 5]), torch.tensor([4, 4]), torch.tensor([9, 9]))
    one, two = (method.distillation_loss(build_step(batch, student)) for batch in (once, twice))
    assert torch.equal(one, two)
    assert bool(torch.isfinite(one))


@pytest.mark.parametrize(
    "wrong",
    [
        {"distillation_weight": -0.1},
        {"topology_share": 1.5},
        {"num_groups": 0},
        {"temperature": 0.0},
        {"max_rows": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        TopologyDistillationSettings(**wrong)
