from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import Teacher
from distill.methods.cross_entropy import CrossEntropy, CrossEntropySettings
from tests.distill.toy import build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit


class TestCrossEntropy(MethodKit):
    name = "ce"
    learning_rate = 0.1
    settings = CrossEntropySettings(num_top=5)


class TestCrossEntropyOfTheUnseen(MethodKit):
    name = "ce"
    learning_rate = 0.1
    settings = CrossEntropySettings(num_top=500, hide_train=True)


class TestSampledCrossEntropy(MethodKit):
    name = "ce"
    learning_rate = 0.1
    settings = CrossEntropySettings(num_top=5, num_negatives=12, num_hard=4)


class TestSmoothedCrossEntropy(MethodKit):
    name = "ce"
    learning_rate = 0.1
    settings = CrossEntropySettings(num_top=500, alpha=0.4, temperature=0.5)


def build(data: Interactions, settings: CrossEntropySettings) -> tuple[CrossEntropy, BPRMF, Teacher]:
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    return CrossEntropy.build(settings, data, student, teacher), student, teacher


@pytest.mark.parametrize("hide_train", [False, True])
@pytest.mark.parametrize("num_top", [3, 25])
def test_loss_is_the_divergence_from_the_softmax_of_the_top_items(
    rng: np.random.Generator, hide_train: bool, num_top: int
) -> None:
    data = build_random(rng)
    settings = CrossEntropySettings(num_top=num_top, temperature=2.0, distillation_weight=1.5, hide_train=hide_train)
    method, student, teacher = build(data, settings)
    users, items = student.final_embeddings()
    expected = 0.0
    for user in range(data.num_users):
        open_items = np.arange(data.num_items)
        if hide_train:
            open_items = np.setdiff1d(open_items, data.train[user].indices)
        scores = (teacher.users[user] @ teacher.items[open_items].T).double()
        top = torch.argsort(scores, descending=True)[:num_top]
        probabilities = torch.softmax(scores[top] / 2, dim=0)
        logs = torch.log_softmax((users[user] @ items[open_items].T).double() / 2, dim=0)
        expected += float((probabilities * (probabilities.log() - logs[top])).sum())
    found = method.distillation_loss(build_step(whole_batch(data), student))
    assert found.item() == pytest.approx(1.5 * expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, student.table)
    assert bool(torch.isfinite(gradient).all())
    assert bool(gradient.any())


def test_smoothing_ranks_with_the_filtered_teacher(rng: np.random.Generator) -> None:
    data = build_random(rng)
    plain, *_ = build(data, CrossEntropySettings(num_top=5))
    same, *_ = build(data, CrossEntropySettings(num_top=5, alpha=0.0))
    smooth, *_ = build(data, CrossEntropySettings(num_top=5, alpha=0.9))
    assert torch.equal(plain._items, same._items)
    assert not torch.equal(plain._items, smooth._items)


@pytest.mark.parametrize(
    "wrong", [{"num_top": 0}, {"alpha": 1.5}, {"temperature": -1.0}, {"base_weight": -1.0}, {"distillation_weight": -1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        CrossEntropySettings(**wrong)  # type: ignore[arg-type]
