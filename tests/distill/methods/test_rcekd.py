from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import Teacher
from distill.methods.rcekd import Drawn, RCEKDSettings, RejuvenatedCrossEntropy
from tests.distill.toy import build_interactions, build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit

K, L, C = 5, 4, 10
SMALL = RCEKDSettings(
    distillation_weight=1.5,
    num_top=K,
    num_sampled=L,
    num_candidates=C,
    temperature=0.7,
    overlap_decay=2.0,
    sampling_temperature=0.5,
)


class TestRCEKD(MethodKit):
    name = "rcekd"
    learning_rate = 0.1
    settings = SMALL


class TestMoreItemsThanThereAre(MethodKit):
    name = "rcekd"
    learning_rate = 0.1


class TestRCEKDInTurns(MethodKit):
    name = "rcekd"
    learning_rate = 0.1
    settings = replace(SMALL, in_turns=True, rank_every=2)


def build(data: Interactions, settings: RCEKDSettings) -> tuple[RejuvenatedCrossEntropy, BPRMF, Teacher]:
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    with torch.no_grad():
        student.table.normal_()
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 4), data.num_users)
    # A teacher that is like the student somewhat, so that their lists overlap.
    teacher.features.add_(student.table.detach())
    method = RejuvenatedCrossEntropy.build(settings, data, student, teacher)
    method.begin_epoch(student, np.random.default_rng(1))
    return method, student, teacher


def drawn_of(method: RejuvenatedCrossEntropy) -> Drawn:
    assert method._drawn is not None
    return method._drawn


def sampled_items(method: RejuvenatedCrossEntropy) -> list[list[int]]:
    sampled: list[list[int]] = (drawn_of(method).items[:, K : K + L] - method.num_users).tolist()
    return sampled


def divergence(teacher_scores: torch.Tensor, student_scores: torch.Tensor, items: list[int]) -> torch.Tensor:
    chosen = torch.tensor(items)
    logs = torch.log_softmax(teacher_scores[chosen] / 0.7, dim=0)
    return (logs.exp() * (logs - torch.log_softmax(student_scores[chosen] / 0.7, dim=0))).sum()


def test_loss_mixes_the_divergences_on_the_students_list_and_on_the_closed_rest(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, teacher = build(data, SMALL)
    table = student.table.detach().double().requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    overlaps = set()
    for user, sampled in enumerate(sampled_items(method)):
        theirs = (teacher.items @ teacher.users[user]).double()
        own = table[data.num_users :] @ table[user]
        top_own, top_theirs = (scores.detach().topk(K).indices.tolist() for scores in (own, theirs))
        overlap = len({*top_own} & {*top_theirs})
        overlaps.add(overlap)
        mixing = np.exp(-2.0 * overlap / K)
        closed = sorted(({*top_theirs} - {*top_own}) | {*sampled})
        expected = expected + (1 - mixing) * divergence(theirs, own, top_own) + mixing * divergence(theirs, own, closed)
    assert len(overlaps) > 2
    found = method.distillation_loss(build_step(whole_batch(data), student))
    assert found.item() == pytest.approx(1.5 * expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, student.table)
    (right,) = torch.autograd.grad(1.5 * expected, table)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-4, atol=1e-5)


def test_batches_that_are_drawn_for_themselves_have_the_same_loss(rng: np.random.Generator) -> None:
    data = build_random(rng)
    settings = replace(SMALL, num_sampled=C, rank_every=1)
    method, student, teacher = build(data, settings)
    by_batch = RejuvenatedCrossEntropy.build(replace(settings, in_turns=True), data, student, teacher)
    by_batch.begin_epoch(student, np.random.default_rng(1))
    losses = [one.distillation_loss(build_step(whole_batch(data), student)) for one in (method, by_batch)]
    torch.testing.assert_close(*losses)
    assert by_batch._drawn is None, "nothing of all users is kept"


def test_users_are_ranked_in_turns_and_have_the_teachers_list_before(rng: np.random.Generator) -> None:
    data = build_random(rng)
    _, student, teacher = build(data, SMALL)
    method = RejuvenatedCrossEntropy.build(replace(SMALL, in_turns=True, rank_every=3), data, student, teacher)
    first = method.ranking.lists.copy()
    np.testing.assert_array_equal(first, (teacher.users @ teacher.items.T).topk(C).indices)
    users, items = student.final_embeddings()
    own = (users @ items.T).topk(C).indices.numpy()
    for epoch in range(3):
        method.begin_epoch(student, np.random.default_rng(epoch))
        turn = np.arange(data.num_users) % 3 <= epoch
        np.testing.assert_array_equal(method.ranking.lists, np.where(turn[:, None], own, first))


def test_a_student_with_the_teachers_scores_loses_nothing(rng: np.random.Generator) -> None:
    data = build_random(rng)
    _, student, _ = build(data, SMALL)
    teacher = Teacher(student.table.detach().clone(), data.num_users)
    method = RejuvenatedCrossEntropy.build(SMALL, data, student, teacher)
    method.begin_epoch(student, np.random.default_rng(1))
    loss = method.distillation_loss(build_step(whole_batch(data), student))
    assert loss.item() == pytest.approx(0.0, abs=1e-4)


def test_sampled_items_are_different_and_from_the_students_list(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(data, SMALL)
    users, items = student.final_embeddings()
    listed = (users @ items.T).topk(C).indices.tolist()
    for user, sampled in enumerate(sampled_items(method)):
        assert len(set(sampled)) == L
        assert set(sampled) <= set(listed[user])


def test_an_item_weighs_by_how_many_missed_items_of_the_teacher_it_stands_before(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, teacher = build(data, SMALL)
    users, items = student.final_embeddings()
    comparison = method._comparison
    assert comparison is not None
    for user in range(data.num_users):
        order = (items @ users[user]).argsort(descending=True).tolist()
        top = (teacher.items @ teacher.users[user]).topk(K).indices.tolist()
        places = [order.index(item) for item in top if order.index(item) >= K]
        counts = np.array([sum(place > j for place in places) for j in range(C)])
        found = comparison.log_weights[user] * 0.5
        np.testing.assert_allclose(found - found[-1], counts - counts[-1], atol=1e-6)


def test_student_ranks_when_it_is_due_and_draws_are_new_every_epoch(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(data, RCEKDSettings(num_top=K, num_sampled=L, num_candidates=C, rank_every=2))
    items = [drawn_of(method).items]
    for epoch in range(2):
        with torch.no_grad():
            student.table.normal_()
        method.begin_epoch(student, np.random.default_rng(2 + epoch))
        items.append(drawn_of(method).items)
    assert torch.equal(items[0][:, :K], items[1][:, :K])
    assert not torch.equal(items[0][:, K : K + L], items[1][:, K : K + L])
    assert not torch.equal(items[1][:, :K], items[2][:, :K])


def test_a_restored_method_draws_what_the_straight_one_does(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, teacher = build(data, SMALL)
    restored = RejuvenatedCrossEntropy.build(SMALL, data, student, teacher)
    restored.load_state_dict(method.state_dict())
    with torch.no_grad():
        student.table.normal_()
    losses = []
    for one in (method, restored):
        one.begin_epoch(student, np.random.default_rng(5))
        losses.append(one.distillation_loss(build_step(whole_batch(data), student)))
    assert torch.equal(*losses)


def test_users_without_training_items_and_a_tiny_catalogue_can_be_learned_from() -> None:
    data = build_interactions((3, 4), [(0, item) for item in range(3)])
    method, student, _ = build(data, RCEKDSettings())
    assert drawn_of(method).items.shape == (3, 12)
    assert bool(torch.isfinite(method.distillation_loss(build_step(whole_batch(data), student))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_top": 0},
        {"num_sampled": 0},
        {"num_candidates": 0},
        {"num_candidates": 49},
        {"rank_every": 0},
        {"temperature": 0.0},
        {"sampling_temperature": 0.0},
        {"overlap_decay": -1.0},
        {"distillation_weight": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        RCEKDSettings(**wrong)  # type: ignore[arg-type]
