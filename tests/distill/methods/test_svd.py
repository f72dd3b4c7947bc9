from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import finite
from distill.errors import SettingError
from distill.methods import svd
from distill.methods.svd import truncated_svd


def factors(num_users: int, num_items: int, dim: int, seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    users, items = (rng.normal(size=(count, dim)).astype(np.float32) for count in (num_users, num_items))
    return users, items


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 100), num_users=st.integers(3, 20), num_items=st.integers(3, 20), dim=st.integers(1, 3))
def test_the_cut_is_the_best_of_its_rank(seed: int, num_users: int, num_items: int, dim: int) -> None:
    users, items = factors(num_users, num_items, 8, seed)
    cut_users, cut_items = truncated_svd(users, items, dim)
    scores = users.astype(np.float64) @ items.T.astype(np.float64)
    left, singular, right = np.linalg.svd(scores)
    best = (left[:, :dim] * singular[:dim]) @ right[:dim]
    error = np.linalg.norm(scores - cut_users @ cut_items.T)
    # Eckart and Young: the error is that of the singular values left out.
    assert error == pytest.approx(np.linalg.norm(scores - best), rel=1e-4, abs=1e-4)


def test_the_full_rank_cut_keeps_every_score() -> None:
    users, items = factors(30, 40, 6)
    cut_users, cut_items = truncated_svd(users, items, 6)
    np.testing.assert_allclose(cut_users @ cut_items.T, users @ items.T, atol=1e-4)


@pytest.mark.parametrize("dim", [0, 7])
def test_a_rank_that_is_not_there(dim: int) -> None:
    with pytest.raises(SettingError, match="dim"):
        truncated_svd(*factors(30, 40, 6), dim)


def test_large_embeddings_are_cut_alike_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    users, items = factors(300, 200, 8)
    items[:, 7] = items[:, 6]  # a direction that is not there
    exact = truncated_svd(users, items, 5)
    monkeypatch.setattr(svd, "GRAM_ROWS", 0)
    monkeypatch.setattr(finite, "BLOCK_NUMBERS", 512)
    by_gram = truncated_svd(users.astype(np.float16), items, 5)
    np.testing.assert_allclose(by_gram[0] @ by_gram[1].T, exact[0] @ exact[1].T, atol=2e-2)
