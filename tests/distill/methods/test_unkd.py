from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import Teacher
from distill.methods.unkd import UnbiasedDistillation, UnKDSettings, draw_pairs, popularity_groups
from tests.distill.toy import build_interactions, build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit

SMALL = UnKDSettings(num_groups=3, num_pairs=7, temperature=2.0, num_candidates=5, distillation_weight=2.0)


class TestUnKD(MethodKit):
    name = "unkd"
    learning_rate = 0.1
    settings = SMALL


class TestMorePairsThanThereAre(MethodKit):
    name = "unkd"
    learning_rate = 0.1


def build(data: Interactions, settings: UnKDSettings) -> tuple[UnbiasedDistillation, BPRMF, Teacher]:
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    with torch.no_grad():
        student.table.normal_()
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    method = UnbiasedDistillation.build(settings, data, student, teacher)
    method.begin_epoch(student, np.random.default_rng(1))
    return method, student, teacher


def unseen_by_group(data: Interactions, num_groups: int) -> list[list[set[int]]]:
    """For every user, what they have not taken of each group."""
    counts = np.bincount(data.train.indices, minlength=data.num_items)
    groups = popularity_groups(counts, num_groups)
    taken = np.split(data.train.indices, data.train.indptr[1:-1])
    return [[set(group.tolist()) - set(own.tolist()) for group in groups] for own in taken]


def pairs_of(method: UnbiasedDistillation) -> tuple[torch.Tensor, torch.Tensor]:
    """The better and the worse item of every pair, shape (|U|, G P)."""
    better, worse = (method._items - len(method._items)).chunk(2, dim=1)
    return better, worse


def test_loss_is_bpr_over_the_pairs(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(data, SMALL)
    better, worse = pairs_of(method)
    assert better.shape == (30, 9), "7 pairs are 3 a group, rounded up"
    users, items = student.final_embeddings()
    table = torch.cat([users, items]).double().requires_grad_()
    users, items = table[:30], table[30:]
    margins = torch.stack([(items[better[user]] - items[worse[user]]) @ users[user] for user in range(30)])
    has_pairs = np.repeat([[len(left) >= 2 for left in own] for own in unseen_by_group(data, 3)], 3, axis=1)
    expected = -2.0 / 9 * torch.log(torch.sigmoid(margins))[torch.from_numpy(has_pairs)].sum()
    found = method.distillation_loss(build_step(whole_batch(data), student))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, student.table)
    (right,) = torch.autograd.grad(expected, table)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-4, atol=1e-5)


def test_pairs_are_of_one_group_unseen_and_in_the_teachers_order(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, _, teacher = build(data, SMALL)
    scores = teacher.users @ teacher.items.T
    better, worse = pairs_of(method)
    for user, unseen in enumerate(unseen_by_group(data, 3)):
        for column, (first, second) in enumerate(zip(better[user].tolist(), worse[user].tolist(), strict=True)):
            if len(unseen[column // 3]) >= 2:
                assert scores[user, first] > scores[user, second]
                assert {first, second} <= unseen[column // 3]


def test_groups_share_the_interactions_and_hold_every_item_once() -> None:
    groups = popularity_groups(np.array([1, 4, 0, 2, 3, 2, 0]), 3)
    assert [group.tolist() for group in groups] == [[1], [4, 3], [5, 0, 2, 6]]
    assert [group.tolist() for group in popularity_groups(np.array([9, 1, 0]), 4)] == [[0], [1, 2]]
    assert [group.tolist() for group in popularity_groups(np.array([0, 0]), 2)] == [[0, 1]]


def test_pairs_follow_the_product_of_rank_weights() -> None:
    temperature = 1.5
    ranks = draw_pairs(np.full(4000, 4), 5, temperature, np.random.default_rng(3))
    assert ranks.shape == (2, 4000, 5)
    weights = np.exp(-np.arange(4) / temperature)
    expected = np.outer(weights, weights) * (1 - np.eye(4))
    found = np.zeros((4, 4))
    np.add.at(found, (ranks[0].reshape(-1), ranks[1].reshape(-1)), 1)
    apart = ~np.eye(4, dtype=bool)
    assert not found[~apart].any()
    assert chisquare(found[apart], 20_000 * expected[apart] / expected.sum()).pvalue > 0.01


def test_pairs_stay_in_lists_of_their_own_length() -> None:
    lengths = np.array([2, 3, 200])
    ranks = draw_pairs(lengths, 500, 20.0, np.random.default_rng(3))
    assert (ranks < lengths[:, None]).all()
    assert (ranks[0] != ranks[1]).all()
    assert set(np.unique(ranks[:, 1])) == {0, 1, 2}
    assert draw_pairs(np.array([0, 1]), 3, 20.0, np.random.default_rng(3)).tolist() == [[[0] * 3] * 2] * 2


def test_a_group_without_two_unseen_items_adds_nothing() -> None:
    data = build_interactions((3, 4), [(0, 0), (0, 1), (0, 2), (1, 0)])
    method, student, _ = build(data, UnKDSettings(num_groups=2, num_pairs=4))
    assert [group.tolist() for group in popularity_groups(np.array([2, 1, 1, 0]), 2)] == [[0], [1, 2, 3]]
    assert (method._weights > 0).tolist() == [[False] * 4, [False] * 2 + [True] * 2, [False] * 2 + [True] * 2]
    loss = method.distillation_loss(build_step(whole_batch(data), student))
    (gradient,) = torch.autograd.grad(loss, student.table)
    assert not gradient[0].any()
    assert bool(gradient[2].any()), "a user without training items can be learned from"


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_groups": 0},
        {"num_pairs": 0},
        {"num_candidates": 1},
        {"temperature": 0.0},
        {"distillation_weight": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        UnKDSettings(**wrong)  # type: ignore[arg-type]
