from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import distill.rows
from distill.rows import (
    distinct_rows,
    empty_table,
    gather_rows,
    is_row_sparse,
    mark_row_sparse,
    spread_into_rows,
    sum_into_rows,
)


@pytest.mark.parametrize("flags", [0, 1000])
def test_distinct_rows_are_a_set(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, flags: int) -> None:
    monkeypatch.setattr(distill.rows, "SPARSE_FLAGS", flags)
    rows = torch.from_numpy(rng.integers(50, size=40, dtype=np.int32))
    distinct, places = distinct_rows(rows, 50)
    assert distinct.tolist() == sorted(set(rows.tolist()))
    assert torch.equal(distinct[places], rows.long())


def test_a_marked_table_is_read_like_any_other_and_gets_a_sparse_gradient() -> None:
    gradients = []
    for marked in (False, True):
        table = torch.arange(12.0).view(6, 2).requires_grad_()
        if marked:
            mark_row_sparse(table)
        assert is_row_sparse(table) == marked
        assert not is_row_sparse(table * 1.0)
        rows = gather_rows(table, torch.tensor([[4, 1], [4, 4]]))
        assert rows.shape == (2, 2, 2)
        (gradient,) = torch.autograd.grad(rows.square().sum(), [table])
        assert gradient.is_sparse == marked
        gradients.append(gradient.to_dense())
    assert torch.equal(*gradients)


def test_sums_are_the_same_sparse_or_not() -> None:
    parts = [(torch.tensor([1, 1, 3]), torch.ones(3, 2)), (torch.tensor([3]), torch.full((1, 2), 5.0))]
    dense = sum_into_rows((5, 2), parts, sparse=False)
    assert dense[:, 0].tolist() == [0, 2, 0, 6, 0]
    assert torch.equal(sum_into_rows((5, 2), parts, sparse=True).to_dense(), dense)


@pytest.mark.parametrize("sparse", [False, True])
def test_bags_spread_what_they_summed_up(rng: np.random.Generator, *, sparse: bool) -> None:
    dense = (rng.random((4, 9)) < 0.5) * rng.random((4, 9)).astype(np.float32)
    entries = sp.csr_matrix(dense)
    columns, weights, starts = (torch.from_numpy(part) for part in (entries.indices, entries.data, entries.indptr[:-1]))
    sources = torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32))
    spread = spread_into_rows(9, sources, (columns, weights, starts), sparse=sparse)
    assert spread.is_sparse == sparse
    torch.testing.assert_close(spread.to_dense(), torch.from_numpy(dense.T) @ sources)


def test_a_large_table_is_memory_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for large in (0, 2**40):
        monkeypatch.setattr(distill.rows, "LARGE_TABLE", large)
        table = empty_table(300, 7)
        assert table.shape == (300, 7)
        drawn.append(table.normal_(generator=torch.Generator().manual_seed(1)))
    assert torch.equal(*drawn)
    torch.manual_seed(3)
    expected = torch.randn(300, 7)
    torch.manual_seed(3)
    assert torch.equal(empty_table(300, 7).normal_(), expected), "what earlier versions drew"
