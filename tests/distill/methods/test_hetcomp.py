from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import Teacher
from distill.methods.hetcomp import HetCompSettings, HeterogeneousCompression, list_gaps, move_on
from tests.distill.toy import build_interactions, build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit

SMALL = HetCompSettings(num_top=10, rank_every=2)


class TestHetComp(MethodKit):
    name = "hetcomp"
    learning_rate = 0.1
    settings = SMALL


class TestMoreItemsThanThereAre(MethodKit):
    name = "hetcomp"
    learning_rate = 0.1


def build(data: Interactions, settings: HetCompSettings = SMALL) -> tuple[HeterogeneousCompression, BPRMF, Teacher]:
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    with torch.no_grad():
        student.table.normal_()
    first, second, last = torch.randn(3, data.num_users + data.num_items, 9)
    teacher = Teacher(last, data.num_users, (first.half(), second.half()))
    return HeterogeneousCompression.build(settings, data, student, teacher), student, teacher


def public_losses(
    scores: torch.Tensor, observed: torch.Tensor, top: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The coarse and the fine loss of the public code (woriazzc/KDs, class HetComp), in its own terms: sums of
    exponentials over unseen items less those of the list, denominators from the back."""
    unseen = (scores.exp() * (1 - mask)).sum(1, keepdim=True)
    chosen = torch.cat([scores.gather(1, observed), scores.gather(1, top)], dim=1)
    others = unseen - scores.gather(1, top).exp().sum(1, keepdim=True)
    coarse = 2 * ((others + chosen.exp()).log() - chosen).sum()

    def ordered(items: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        own = scores.gather(1, items)
        return (own.flip(1).exp().cumsum(1) + rest).log().sum() - own.sum()

    half, tenth = top[:, : top.shape[1] // 2], top[:, : top.shape[1] // 10]
    rests = [unseen - scores.gather(1, head).exp().sum(1, keepdim=True) for head in (half, tenth)]
    return coarse, ordered(observed, rests[0]) + (ordered(half, rests[0]) + ordered(tenth, rests[1])) / 2


@pytest.mark.parametrize("fine", [False, True])
def test_losses_are_those_of_the_public_code(rng: np.random.Generator, fine: bool) -> None:
    data = build_random(rng)
    method, student, teacher = build(data, replace(SMALL, distillation_weight=0.5))
    if fine:
        method._stage.fill_(2)
    assert method.is_fine == fine
    table = student.table.detach().double().requires_grad_()
    scores = table[:30] @ table[30:].T
    mask = torch.from_numpy(data.train.toarray()).double()
    past = (teacher.features if fine else teacher.trajectory[0].float()).double()
    top = (past[:30] @ past[30:].T - 1e9 * mask).topk(10).indices
    observed = (teacher.users @ teacher.items.T).double().sub(1e9 * (1 - mask)).topk(1).indices
    expected = 0.5 * public_losses(scores, observed, top, mask)[fine]
    found = method.distillation_loss(build_step(whole_batch(data), student))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, student.table)
    (right,) = torch.autograd.grad(expected, table)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-4, atol=1e-4)


def test_gaps_are_those_of_the_public_code(rng: np.random.Generator) -> None:
    """`_get_NDCG_u` of the same class, which rounds to four digits."""
    lists, wanted = (np.stack([rng.permutation(30)[:10] for _ in range(6)]).astype(np.int32) for _ in range(2))
    for row, gap in enumerate(list_gaps(lists, wanted, 30)):
        gains = 2 ** np.array([np.exp(-rank / 10) for rank in range(10)]) - 1
        discounted = gains / np.log2(np.arange(2, 12))
        found = np.sum(np.isin(lists[row], wanted[row]) * discounted) / discounted.sum()
        assert gap == pytest.approx(1 - round(found, 4), abs=1e-4)
    assert list_gaps(lists, lists, 30).tolist() == pytest.approx([0.0] * 6, abs=1e-12)


def test_users_move_on_when_nearer_by_the_threshold_or_further_away() -> None:
    gaps = np.array([[0.0] * 5, [0.5, 0.9, 0.79, 0.81, 0.4], [0.6, 0.7, 0.8, 0.9, 0.3]])
    stage, before = move_on(gaps, np.array([0, 0, 1, 0, 2]), np.array([0.8] * 4 + [0.1]), 1.05)
    assert stage.tolist() == [1, 1, 1, 1, 2], "nearer, further, level, further, at the end"
    assert before.tolist() == pytest.approx([0.6, 0.7, 0.8, 0.9, 0.1])


def test_a_student_that_learns_comes_to_the_fine_loss_and_state_is_kept(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(data)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    stages = []
    for epoch in range(60):
        method.begin_epoch(student, rng)
        if epoch < 4:
            assert not method._stage.any(), "the first look takes gaps, the second may move"
        stages.append(float(method._stage.double().mean()))
        optimizer.zero_grad()
        torch.autograd.backward(method.distillation_loss(build_step(whole_batch(data), student)))
        optimizer.step()
    assert stages == sorted(stages)
    assert method.is_fine
    again, *_ = build(data)
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    assert again.is_fine
    step = build_step(whole_batch(data), student)
    assert again.distillation_loss(step).item() == method.distillation_loss(step).item()


def test_what_is_short_of_items_is_not_looked_at() -> None:
    """A list is at most half the items: of 6 three, of which who has 5 can have one; O is one item, if there is one."""
    taken = [(0, 0), *((1, item) for item in range(5)), (2, 3)]
    data = build_interactions((4, 6), taken)
    method, student, _ = build(data, HetCompSettings(num_top=20))
    assert method._present.sum(dim=1).tolist() == [3 + 1, 1 + 1, 3 + 1, 3]
    for stage in (0, 2):
        method._stage.fill_(stage)
        loss = method.distillation_loss(build_step(whole_batch(data), student))
        (gradient,) = torch.autograd.grad(loss, student.table)
        assert bool(torch.isfinite(loss))
        assert bool(torch.isfinite(gradient).all())


def test_a_teacher_that_kept_nothing_is_refused_with_the_option_to_train_it_with(rng: np.random.Generator) -> None:
    data = build_random(rng)
    _, student, teacher = build(data)
    with pytest.raises(SettingError, match="--keep-checkpoints 3"):
        HeterogeneousCompression.build(SMALL, data, student, Teacher(teacher.features, data.num_users))


@pytest.mark.parametrize(
    "wrong",
    [{"num_top": 0}, {"rank_every": 0}, {"temperature": 0.0}, {"threshold": 0.0}, {"base_weight": -1.0}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        HetCompSettings(**wrong)  # type: ignore[arg-type]
