from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import Teacher
from distill.methods.rrd import RelaxedRankingDistillation, RRDSettings, relaxed_ranking_loss
from tests.distill.toy import build_interactions, build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit

SMALL = RRDSettings(num_interesting=4, num_uninteresting=5, temperature=2.0, num_candidates=8)


class TestRRD(MethodKit):
    name = "rrd"
    learning_rate = 0.1
    settings = SMALL


class TestMoreItemsThanThereAre(MethodKit):
    name = "rrd"
    learning_rate = 0.1


def build(data: Interactions, settings: RRDSettings) -> tuple[RelaxedRankingDistillation, BPRMF, Teacher]:
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    with torch.no_grad():
        student.table.normal_()
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    method = RelaxedRankingDistillation.build(settings, data, student, teacher)
    method.begin_epoch(student, np.random.default_rng(1))
    return method, student, teacher


def drawn_items(method: RelaxedRankingDistillation) -> tuple[list[list[int]], list[list[int]]]:
    """Interesting and uninteresting items of every user."""
    items = (method._items - len(method._items)).tolist()
    k = method._num_interesting
    return [row[:k] for row in items], [row[k:] for row in items]


def test_loss_is_the_relaxed_plackett_luce_likelihood(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(data, SMALL)
    table = student.table.detach().double().requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for user, (interesting, rest) in enumerate(zip(*drawn_items(method), strict=True)):
        for place in range(len(interesting)):
            others = interesting[place:] + rest
            scores = table[data.num_users + torch.tensor(others)] @ table[user]
            expected = expected - torch.log_softmax(scores, dim=0)[0]
    found = method.distillation_loss(build_step(whole_batch(data), student))
    assert found.item() == pytest.approx(0.1 * expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, student.table)
    (right,) = torch.autograd.grad(0.1 * expected, table)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-4, atol=1e-5)


def test_draws_are_unseen_interesting_in_the_teachers_order_and_the_rest_beyond_its_list(
    rng: np.random.Generator,
) -> None:
    data = build_random(rng)
    method, _, teacher = build(data, SMALL)
    scores = (teacher.users @ teacher.items.T).numpy()
    scores[data.train.nonzero()] = -np.inf
    order = np.argsort(-scores, axis=1)
    for user, (interesting, rest) in enumerate(zip(*drawn_items(method), strict=True)):
        ranks = [order[user].tolist().index(item) for item in interesting]
        assert ranks == sorted(set(ranks))
        assert max(ranks) < 8
        taken = data.train.indices[data.train.indptr[user] : data.train.indptr[user + 1]]
        assert not set(rest) & ({*order[user, :8].tolist()} | {*taken.tolist()})
        assert len(rest) == 5


def test_interesting_items_are_drawn_by_rank_and_anew_every_epoch() -> None:
    data = build_interactions((4000, 8), [(0, 0)])
    settings = RRDSettings(num_interesting=1, num_uninteresting=1, temperature=1.5, num_candidates=4)
    method, student, teacher = build(data, settings)
    order = np.argsort(-(teacher.users @ teacher.items.T).numpy(), axis=1)[1:]
    first = np.array(drawn_items(method)[0])[1:]
    counts = np.bincount((order == first).argmax(axis=1), minlength=4)
    weights = np.exp(-np.arange(4) / 1.5)
    assert chisquare(counts, counts.sum() * weights / weights.sum()).pvalue > 0.01
    method.begin_epoch(student, np.random.default_rng(2))
    assert (np.array(drawn_items(method)[0])[1:] != first).mean() > 0.3


def test_a_low_temperature_takes_the_first_always(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, *_ = build(data, RRDSettings(num_interesting=3, temperature=0.01, num_candidates=8))
    np.testing.assert_array_equal(drawn_items(method)[0], method._ranked[:, :3])


def test_users_without_training_items_and_users_with_nearly_all_can_be_learned_from() -> None:
    data = build_interactions((3, 6), [(0, item) for item in range(5)])
    method, student, _ = build(data, RRDSettings())
    interesting, rest = drawn_items(method)
    assert len(interesting[0]) == 3
    assert interesting[0][0] == 5
    assert len(set(rest[2])) == 3
    assert bool(torch.isfinite(method.distillation_loss(build_step(whole_batch(data), student))))


def test_loss_and_gradient_are_finite_for_scores_far_apart() -> None:
    scores = torch.tensor([[-500.0, 0.0, 400.0, 10.0], [1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    losses = relaxed_ranking_loss(scores, 2)
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    assert bool(torch.isfinite(losses).all())
    assert bool(torch.isfinite(gradient).all())
    assert losses[0].item() == pytest.approx(900 + 400, rel=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_interesting": 0},
        {"num_uninteresting": 0},
        {"num_candidates": 0},
        {"temperature": 0.0},
        {"distillation_weight": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        RRDSettings(**wrong)  # type: ignore[arg-type]
