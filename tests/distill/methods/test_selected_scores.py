from __future__ import annotations

import pytest
import torch

import distill.methods.responses
from distill.methods.responses import selected_scores

OWNERS = torch.tensor([4, 0, 6])
OTHERS = torch.tensor([[9, 8, 9, 12], [10, 9, 11, 8], [12, 12, 12, 7]])


@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_scores_and_gradient_equal_plain_indexing(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(distill.methods.responses, "GATHERED_BYTES", block_bytes)
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
