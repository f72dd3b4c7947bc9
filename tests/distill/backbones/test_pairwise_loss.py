from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.backbones.pairwise_loss import bpr_loss, pairwise_loss


def test_bpr_by_hand_and_stable_for_large_gaps() -> None:
    loss = bpr_loss(torch.tensor([0.0, 1.0, 300.0, -300.0]), torch.tensor([0.0, 0.0, -300.0, 300.0]))
    assert loss.tolist() == pytest.approx([math.log(2), math.log(1 + math.exp(-1)), 0.0, 600.0])


def plain(embeddings: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    user, positive, negative = (embeddings[part] for part in rows)
    return bpr_loss((user * positive).sum(dim=1), (user * negative).sum(dim=1)).sum()


@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(0.1, 3), st.sampled_from([1, 3, 128]))
def test_loss_and_gradient_are_those_of_the_plain_formula(seed: int, size: int, spread: float, dim: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = (spread * torch.randn(9, dim, generator=generator)).requires_grad_()
    rows = [torch.randint(9, (size,), generator=generator) for _ in range(3)]
    found, expected = pairwise_loss(embeddings, *rows), plain(embeddings, rows)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(2.5 * found, embeddings)
    (wanted,) = torch.autograd.grad(2.5 * expected, embeddings)
    torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-4)


def test_a_gradient_can_be_taken_twice_and_is_the_callers_own() -> None:
    embeddings = torch.randn(5, 2, requires_grad=True)
    loss = pairwise_loss(embeddings, *torch.tensor([[0, 1], [2, 3], [4, 4]]))
    (first,) = torch.autograd.grad(loss, embeddings, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, embeddings)
    assert torch.equal(first, kept)
    assert torch.equal(second, kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_the_cpu() -> None:
    rows = list(torch.randint(9, (3, 20)))
    here = torch.randn(9, 4, requires_grad=True)
    there = here.detach().to("cuda").requires_grad_()
    (expected,) = torch.autograd.grad(pairwise_loss(here, *rows), here)
    (found,) = torch.autograd.grad(pairwise_loss(there, *(part.to("cuda") for part in rows)), there)
    torch.testing.assert_close(found.cpu(), expected)
