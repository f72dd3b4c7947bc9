from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import Teacher
from distill.methods.dcd import Correction, DCDSettings, DualCorrection
from tests.distill.toy import build_interactions, build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit

SMALL = DCDSettings(num_corrected=3, temperature=1.0, num_candidates=6, item_weight=0.5, rank_every=2)

Scores = npt.NDArray[np.float32]


class TestDCD(MethodKit):
    name = "dcd"
    learning_rate = 0.1
    settings = SMALL


class TestUserSideAlone(MethodKit):
    name = "dcd"
    learning_rate = 0.1
    settings = replace(SMALL, item_weight=0.0)


def build(data: Interactions, settings: DCDSettings) -> tuple[DualCorrection, BPRMF, Teacher]:
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    with torch.no_grad():
        student.table.normal_()
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    return DualCorrection.build(settings, data, student, teacher), student, teacher


def ranks(rows: torch.Tensor, candidates: torch.Tensor, seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The rank of every candidate, seen ones last: shape (R, N)."""
    scores = np.where(seen, -np.inf, (rows @ candidates.T).numpy())
    return np.argsort(np.argsort(-scores, axis=1), axis=1)


def likelihood_loss(own: torch.Tensor, others: torch.Tensor, num_ranked: int) -> torch.Tensor:
    scores = others @ own
    return -sum(
        (torch.log_softmax(torch.cat([scores[place:num_ranked], scores[num_ranked:]]), dim=0)[0]
         for place in range(num_ranked)),
        torch.zeros((), dtype=torch.float64),
    )  # fmt: skip


@pytest.mark.parametrize("item_weight", [0.0, 0.5])
def test_loss_puts_the_under_estimated_before_the_over_estimated_on_both_sides(
    rng: np.random.Generator, item_weight: float
) -> None:
    data = build_random(rng)
    method, student, _ = build(data, replace(SMALL, item_weight=item_weight))
    method.begin_epoch(student, np.random.default_rng(1))
    table = student.table.detach().double().requires_grad_()
    users, items = table[:30], table[30:]
    expected = torch.zeros((), dtype=torch.float64)
    for user, drawn in enumerate(method._items_of_users - 30):
        expected = expected + likelihood_loss(users[user], items[drawn], 3)
    for item, drawn in enumerate(method._users_of_items):
        expected = expected + item_weight * likelihood_loss(items[item], users[drawn], 3)
    found = method.distillation_loss(build_step(whole_batch(data), student))
    assert found.item() == pytest.approx(0.1 * expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, student.table)
    (right,) = torch.autograd.grad(0.1 * expected, table)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-4, atol=1e-5)


def test_draws_are_where_student_and_teacher_disagree(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, teacher = build(data, SMALL)
    method.begin_epoch(student, np.random.default_rng(1))
    seen = data.train.toarray() > 0
    users, items = student.final_embeddings()
    for drawn, theirs, own in (
        (method._items_of_users - 30, ranks(teacher.users, teacher.items, seen), ranks(users, items, seen)),
        (method._users_of_items, ranks(teacher.items, teacher.users, seen.T), ranks(items, users, seen.T)),
    ):
        under, over = drawn[:, :3].numpy(), drawn[:, 3:].numpy()
        for row in range(len(drawn)):
            wrong = np.flatnonzero((theirs[row] < 6) & (own[row] > theirs[row]))
            assert set(under[row]) <= set(wrong) or len(wrong) < 3
            assert (np.diff(theirs[row, under[row]]) > 0).all(), "the under-estimated are in the teacher's order"
            wrong = np.flatnonzero((own[row] < 6) & (theirs[row] > own[row]))
            assert set(over[row]) <= set(wrong) or len(wrong) < 3


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_weights_are_tanh_of_the_ranks_apart_though_lists_are_cut(rng: np.random.Generator, temperature: float) -> None:
    settings = DCDSettings(temperature=temperature, num_candidates=6)
    features, embeddings = torch.randn(4 + 200, 5), torch.randn(4 + 200, 3)
    seen = rng.random((4, 200)) < 0.2
    train = build_interactions((4, 200), [(int(u), int(i)) for u, i in zip(*seen.nonzero(), strict=True)]).train
    side = Correction(settings, features[:4], features[4:], train)
    side.draw(embeddings[:4], embeddings[4:], rng)
    theirs, own = ranks(features[:4], features[4:], seen), ranks(embeddings[:4], embeddings[4:], seen)
    for found, first, second in zip(side._log_weights, (theirs, own), (own, theirs), strict=True):
        listed = np.argsort(first, axis=1)[:, :6]
        apart = np.take_along_axis(second - first, listed, axis=1)
        assert found.shape == (4, 6)
        np.testing.assert_allclose(np.exp(found), np.maximum(np.tanh(apart / temperature), 1e-5), atol=1e-4)


def test_student_ranks_when_it_is_due_and_draws_are_new_every_epoch(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(data, SMALL)
    drawn, lists = [], []
    for epoch in range(3):
        method.begin_epoch(student, np.random.default_rng(epoch))
        drawn.append(method._items_of_users)
        lists.append(method.state_dict()["_user_side._ranking._lists"].clone())
        with torch.no_grad():
            student.table.normal_()
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(lists[0], lists[1])
    assert not torch.equal(lists[1], lists[2])


def test_few_candidates_rows_without_any_and_rows_with_nearly_all_can_be_learned_from() -> None:
    data = build_interactions((3, 5), [(0, item) for item in range(4)])
    method, student, _ = build(data, DCDSettings())
    method.begin_epoch(student, np.random.default_rng(1))
    assert method._items_of_users.shape == (3, 10)
    assert method._users_of_items.shape == (5, 6)
    assert bool(torch.isfinite(method.distillation_loss(build_step(whole_batch(data), student))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_corrected": 0},
        {"num_candidates": 0},
        {"rank_every": 0},
        {"temperature": 0.0},
        {"item_weight": -1.0},
        {"distillation_weight": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        DCDSettings(**wrong)  # type: ignore[arg-type]
