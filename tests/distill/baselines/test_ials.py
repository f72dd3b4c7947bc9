from __future__ import annotations

import sys
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.baselines.ials import IALSSettings, ials, penalties, solve_rows
from distill.errors import SettingError
from tests.distill.baselines.toy import random_interactions, scores_of
from tests.kits.baseline_kit import BaselineKit


class TestIALS(BaselineKit):
    name = "ials"
    settings: ClassVar[dict[str, float]] = {"unobserved_ratio": 1.0, "regularization": 0.01, "dim": 6}


def test_rows_are_those_of_implicit() -> None:
    """`recalculate_user` of implicit 0.7.3 with confidence c = 3 and λ = 0.3, which are α₀ = 1 / (c − 1), λ / (c − 1)
    and rows c / (c − 1) times as long."""
    items = torch.tensor([[0.5, -0.2], [0.1, 0.4], [-0.3, 0.6], [0.7, 0.2], [-0.1, -0.5]])
    train = sp.csr_matrix(np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 0], [1, 1, 1, 1, 0]], dtype=np.float32))
    users = torch.empty(3, 2)
    solve_rows(users, items, train, IALSSettings(0.5, 0.15, frequency_exponent=0.0))
    golden = torch.tensor([[0.87062085, -0.4092958], [-0.40750325, 0.8732211], [1.1839709, 1.40255]])
    torch.testing.assert_close(1.5 * users, golden, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), dim=st.sampled_from([2, 5, 40]), exponent=st.floats(0, 1.5))
def test_rows_solve_the_normal_equations(seed: int, dim: int, exponent: float) -> None:
    taken = random_interactions(np.random.default_rng(seed), (25, 30), 0.2)
    users, items = torch.randn(30, dim, generator=torch.Generator().manual_seed(seed)), torch.empty(25, dim)
    chosen = IALSSettings(0.2, 0.05, exponent)
    solve_rows(items, users, taken, chosen)
    ridge = penalties(taken, chosen).double()
    gram = users.double().T @ users.double()
    for item in range(len(items)):
        own = users[torch.from_numpy(taken[[item]].indices.astype(np.int64))].double()
        normal = 0.2 * gram + own.T @ own + ridge[item] * torch.eye(dim)
        torch.testing.assert_close(normal @ items[item].double(), own.sum(dim=0), rtol=1e-4, atol=1e-5)


def test_what_it_finds_is_the_least_loss_by_any_rotation() -> None:
    """Two groups that share no item: a user scores its own group near 1, the other near 0, whatever was drawn."""
    taken = np.kron(np.eye(2), np.ones((4, 5)))
    train = sp.csr_matrix((taken - np.eye(8, 10)).clip(min=0).astype(np.float32))
    for seed in (0, 1):
        found = scores_of(ials(train, 0.02, 0.001, 2, seed=seed), train)
        np.testing.assert_allclose(found, taken, atol=0.1)


def test_sets_are_solved_alike_however_they_are_cut(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    train = random_interactions(rng, (30, 25))
    found = []
    for floats in (1, 2**24):
        monkeypatch.setattr(sys.modules["distill.baselines.ials"], "CHUNK_FLOATS", floats)
        found.append(scores_of(ials(train, 1.0, 0.01, 4), train))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("wrong", [{"unobserved_weight": 0.0}, {"regularization": -1.0}, {"frequency_exponent": -0.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        IALSSettings(**wrong)
