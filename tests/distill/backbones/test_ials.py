from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.backbones.ials import IALS, IALSSettings, penalties, solve_rows
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.protocol import Protocol, evaluate
from tests.distill.toy import build_random
from tests.kits.backbone_kit import BackboneKit


class TestIALS(BackboneKit):
    name = "ials"


def loss_of(model: IALS, data: Interactions) -> float:
    """The loss as the module states it, over the dense matrix."""
    users, items = (part.double().numpy() for part in model.final_embeddings())
    scores, taken = users @ items.T, data.train.toarray()
    total = (taken * (1 - scores) ** 2).sum() + model.settings.unobserved_weight * (scores**2).sum()
    for rows, sets in ((users, data.train), (items, data.train.T.tocsr())):
        total += float(penalties(sets, model.settings).double().numpy() @ (rows**2).sum(axis=1))
    return float(total)


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
    data = build_random(np.random.default_rng(seed))
    torch.manual_seed(seed)
    model = IALS.build(IALSSettings(0.2, 0.05, exponent), data, dim)
    users, items = model.table.detach()[: data.num_users], model.table.detach()[data.num_users :]
    solve_rows(items, users, data.train.T.tocsr(), model.settings)
    ridge = penalties(data.train.T.tocsr(), model.settings).double()
    gram = users.double().T @ users.double()
    for item in range(data.num_items):
        own = users[torch.from_numpy(data.train[:, item].nonzero()[0].astype(np.int64))].double()
        normal = 0.2 * gram + own.T @ own + ridge[item] * torch.eye(dim)
        torch.testing.assert_close(normal @ items[item].double(), own.sum(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [3, 20])
def test_an_epoch_returns_the_loss_and_never_raises_it(rng: np.random.Generator, dim: int) -> None:
    data = build_random(rng)
    model = IALS.build(IALSSettings(), data, dim)
    losses = [loss_of(model, data)]
    for _ in range(6):
        assert model.solve_epoch() == pytest.approx(loss_of(model, data), rel=1e-4)
        losses.append(loss_of(model, data))
    assert (np.diff(losses) <= 1e-4 * losses[0]).all()


def test_solving_ranks_the_held_out_diagonal_first(checkerboard: Interactions) -> None:
    torch.manual_seed(0)
    model = IALS.build(IALSSettings(), checkerboard, 2)
    for _ in range(4):
        model.solve_epoch()
    protocol = Protocol(mask="train+validation", cutoffs=(1,))
    assert evaluate(*model.final_embeddings(), checkerboard, protocol).metrics["Recall@1"] == 1.0


def test_sets_are_solved_alike_however_they_are_cut(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_random(rng)
    tables = []
    for floats in (1, 2**24):
        monkeypatch.setattr("distill.backbones.ials.CHUNK_FLOATS", floats)
        torch.manual_seed(0)
        model = IALS.build(IALSSettings(), data, 4)
        model.solve_epoch()
        tables.append(model.table.detach())
    torch.testing.assert_close(*tables)


@pytest.mark.parametrize("wrong", [{"unobserved_weight": 0.0}, {"regularization": -1.0}, {"frequency_exponent": -0.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        IALSSettings(**wrong)
