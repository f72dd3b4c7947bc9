from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import distill.methods.responses
from distill.backbones import BACKBONES
from distill.backbones.simplex import SimpleX
from distill.data.interactions import Interactions
from distill.methods import METHODS, Teacher
from distill.methods.cross_entropy import CrossEntropySettings
from distill.methods.kl import KullbackLeibler
from distill.methods.responses import (
    ResponseSettings,
    TeacherTarget,
    TopTarget,
    catalogue_divergence,
    scale_temperature,
    selected_scores,
)


@pytest.mark.parametrize(("backbone", "expected"), [("bprmf", 2.0), ("lightgcn", 2.0), ("simplex", 0.1)])
def test_cosines_are_sharpened(checkerboard: Interactions, backbone: str, expected: float) -> None:
    student = BACKBONES[backbone].build(BACKBONES[backbone].Settings(), checkerboard, 4)
    settings = CrossEntropySettings(temperature=2.0, num_top=7)
    suited = scale_temperature(settings, student)
    assert suited.temperature == pytest.approx(expected)
    assert replace(suited, temperature=2.0) == settings


@pytest.mark.parametrize("name", ["ce", "kl", "rcekd"])
def test_every_softmax_over_scores_is_suited(checkerboard: Interactions, name: str) -> None:
    student = SimpleX.build(SimpleX.Settings(), checkerboard, 4)
    teacher = Teacher(torch.randn(checkerboard.num_users + checkerboard.num_items, 9), checkerboard.num_users)
    method: Any = METHODS[name].build(METHODS[name].Settings(temperature=3.0), checkerboard, student, teacher)
    assert method.settings.temperature == pytest.approx(0.15)


def test_settings_are_left_alone(checkerboard: Interactions) -> None:
    given = ResponseSettings(temperature=1.0)
    student = SimpleX.build(SimpleX.Settings(), checkerboard, 4)
    teacher = Teacher(torch.randn(checkerboard.num_users + checkerboard.num_items, 9), checkerboard.num_users)
    KullbackLeibler.build(given, checkerboard, student, teacher)
    assert given.temperature == 1.0


NUM_USERS, NUM_ITEMS, DIM, TEMPERATURE = 7, 11, 3, 1.7


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(NUM_USERS + NUM_ITEMS, DIM, requires_grad=True), torch.tensor([5, 0, 2, 6])


def plain(embeddings: torch.Tensor, users: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    logs = torch.log_softmax(embeddings[users] @ embeddings[NUM_USERS:].T / TEMPERATURE, dim=1)
    return -(target * logs).sum()


@pytest.mark.parametrize("block_users", [1, 3, 64])
def test_top_target_equals_autograd_in_any_block(monkeypatch: pytest.MonkeyPatch, block_users: int) -> None:
    monkeypatch.setattr(distill.methods.responses, "BLOCK_USERS", block_users)
    embeddings, users = tensors()
    items = torch.stack([torch.randperm(NUM_ITEMS)[:4] for _ in users])
    probabilities = torch.softmax(torch.randn(len(users), 4), dim=1)
    loss = catalogue_divergence(embeddings, users, NUM_USERS, TopTarget(items, probabilities), TEMPERATURE)
    dense = torch.zeros(len(users), NUM_ITEMS).scatter_(1, items, probabilities)
    expected = plain(embeddings, users, dense) + (probabilities * probabilities.log()).sum()
    torch.testing.assert_close(loss, expected)
    (found,), (right,) = (torch.autograd.grad(2 * value, embeddings) for value in (loss, expected))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)
    assert not found[1].any(), "a user outside the batch has no gradient"


@pytest.mark.parametrize("block_bytes", [1, 10**6])
def test_teacher_target_equals_autograd(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(distill.methods.responses, "BLOCK_BYTES", block_bytes)
    embeddings, users = tensors()
    teacher_users, teacher_items = torch.randn(len(users), 8), torch.randn(NUM_ITEMS, 8)
    target = TeacherTarget(teacher_users, teacher_items, TEMPERATURE)
    loss = catalogue_divergence(embeddings, users, NUM_USERS, target, TEMPERATURE)
    dense = torch.softmax(teacher_users @ teacher_items.T / TEMPERATURE, dim=1)
    expected = plain(embeddings, users, dense) + (dense * dense.log()).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    (found,), (right,) = (torch.autograd.grad(value, embeddings) for value in (loss, expected))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)


OWNERS = torch.tensor([4, 0, 6])
OTHERS = torch.tensor([[9, 8, 9, 12], [10, 9, 11, 8], [12, 12, 12, 7]])


@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_scores_and_gradient_equal_plain_indexing(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(distill.methods.candidates, "GATHERED_BYTES", block_bytes)
    torch.manual_seed(0)
    table, weights = torch.randn(13, 5, requires_grad=True), torch.randn(3, 4)
    found = selected_scores(table, OWNERS, OTHERS)
    expected = (table[OWNERS][:, None] * table[OTHERS]).sum(dim=2)
    torch.testing.assert_close(found, expected)
    (one,), (two,) = (torch.autograd.grad((weights * scores).sum(), table) for scores in (found, expected))
    torch.testing.assert_close(one, two)
    assert not one[1].any(), "a row that is not asked for has no gradient"


def test_gradient_of_part_of_the_scores_is_that_of_a_dense_one() -> None:
    torch.manual_seed(0)
    table = torch.randn(13, 5, requires_grad=True)
    (found,) = torch.autograd.grad(selected_scores(table, OWNERS, OTHERS)[:, 1:].sum(), table)
    (expected,) = torch.autograd.grad((table[OWNERS][:, None] * table[OTHERS]).sum(dim=2)[:, 1:].sum(), table)
    torch.testing.assert_close(found, expected)
