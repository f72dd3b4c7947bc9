from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.backbones.sampling import Batch, UserSampler
from distill.backbones.simplex import SimpleX, SimpleXSettings
from distill.data.interactions import Interactions
from distill.errors import SettingError
from tests.distill.backbones.recbole_golden import RecBoleGolden
from tests.distill.toy import build_interactions, build_random
from tests.kits.backbone_kit import BackboneKit


class TestSimpleX(BackboneKit):
    name = "simplex"

    def test_base_loss_is_a_sum_over_the_batch(self, checkerboard: Interactions) -> None:
        """Over its pairs: the negatives are shared, so every part has them all."""
        model = self.build(checkerboard)
        batch = self.batch(checkerboard)
        parts = [
            Batch(batch.users[part], batch.positives[part], batch.negatives) for part in (slice(20), slice(20, None))
        ]
        total = sum(model.base_loss(part, model.embeddings()).item() for part in parts)
        assert model.base_loss(batch, model.embeddings()).item() == pytest.approx(total, rel=1e-5)


@pytest.fixture
def golden() -> RecBoleGolden:
    return RecBoleGolden("simplex")


@pytest.fixture
def model(golden: RecBoleGolden) -> SimpleX:
    given = golden.model
    settings = SimpleXSettings(given["margin"], given["negative_weight"], gamma=given["gamma"])
    built = SimpleX.build(settings, golden.interactions(), 4)
    golden.start(built)
    with torch.no_grad():
        built.history_map.weight.copy_(golden.weight)
    return built


def test_embeddings_are_those_of_recbole(golden: RecBoleGolden, model: SimpleX) -> None:
    torch.testing.assert_close(torch.cat(model.final_embeddings()), golden.embeddings)


def test_base_loss_is_that_of_recbole(golden: RecBoleGolden, model: SimpleX) -> None:
    loss = model.base_loss(golden.batch, model.embeddings()).item()
    assert loss == pytest.approx(golden.loss, rel=1e-5)


def test_scores_are_cosines(checkerboard: Interactions) -> None:
    torch.manual_seed(0)
    users, items = SimpleX.build(SimpleXSettings(), checkerboard, 8).final_embeddings()
    for part in (users, items):
        np.testing.assert_allclose(part.norm(dim=1).numpy(), 1.0, rtol=1e-5)


def test_a_user_without_history_keeps_their_own_direction() -> None:
    data = build_interactions((2, 3), [(0, 1), (0, 2)])
    model = SimpleX.build(SimpleXSettings(), data, 4)
    users, _ = model.final_embeddings()
    own = model.table.detach()[1]
    np.testing.assert_allclose(users[1].numpy(), (own / own.norm()).numpy(), rtol=1e-5)


def plain_loss(model: SimpleX, data: Interactions, batch: Batch) -> torch.Tensor:
    """The formula, pair by pair."""
    embeddings = model.embeddings()
    users, items = embeddings[: data.num_users], embeddings[data.num_users :]
    total = torch.zeros(())
    for user, positive in zip(batch.users.tolist(), batch.positives.tolist(), strict=True):
        left = [item for item in batch.negatives.tolist() if data.train[user, item] == 0]
        hinge = torch.relu(items[left] @ users[user] - model.settings.margin).sum()
        total = total + 1 - users[user] @ items[positive] + model.settings.negative_weight / len(left) * hinge
    return total


def test_loss_and_gradient_are_those_of_the_plain_formula(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    data = build_random(rng)
    model = SimpleX.build(SimpleXSettings(margin=0.1, num_negatives=9), data, 6)
    batch = next(model.sampler(data.train, 40).epoch(rng))
    parameters = list(model.parameters())
    found, expected = model.base_loss(batch, model.embeddings()), plain_loss(model, data, batch)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(3.0 * found, parameters)
    for gradient, wanted in zip(gradients, torch.autograd.grad(3.0 * expected, parameters), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-3)


def test_a_user_who_has_taken_every_negative_is_pushed_from_none() -> None:
    data = build_interactions((1, 3), [(0, 0), (0, 1)])
    model = SimpleX.build(SimpleXSettings(margin=-1.0), data, 4)
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([0, 1]))
    users, items = model.final_embeddings()
    assert model.base_loss(batch, model.embeddings()).item() == pytest.approx(1 - float(users[0] @ items[0]), rel=1e-5)


def test_a_batch_of_users_serves_as_well(checkerboard: Interactions) -> None:
    model = SimpleX.build(SimpleXSettings(), checkerboard, 8)
    batch = next(UserSampler(checkerboard.train, 16).epoch(np.random.default_rng(0)))
    assert bool(torch.isfinite(model.base_loss(batch, model.embeddings())))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"margin": 1.0}, r"margin: 1.0 is not a cosine in \[-1, 1\)"),
        ({"negative_weight": 0.0}, "negative_weight: 0.0 is not above 0"),
        ({"num_negatives": 0}, "num_negatives: 0 is below 1"),
        ({"gamma": 1.5}, r"gamma: 1.5 is not in \[0, 1\]"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SimpleXSettings(**given)  # type: ignore[arg-type]
