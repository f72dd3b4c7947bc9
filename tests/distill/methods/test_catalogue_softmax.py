from __future__ import annotations

import pytest
import torch

import distill.methods.responses
from distill.methods.responses import TeacherTarget, TopTarget, catalogue_divergence

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
