"""What every backbone must satisfy: a test class for a new one inherits this and names it.

class TestBPRMF(BackboneKit):
    name = "bprmf"
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from distill.backbones import BACKBONES, Backbone
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.evaluation.protocol import Protocol, evaluate
from distill.rows import mark_row_sparse


class BackboneKit:
    """Attributes: name in `BACKBONES`; the learning rate and the epochs in which it learns a checkerboard."""

    name: ClassVar[str]
    learning_rate: ClassVar[float] = 0.05
    epochs: ClassVar[int] = 20

    def build(self, data: Interactions, seed: int = 0, dim: int = 8) -> Backbone:
        torch.manual_seed(seed)
        backbone = BACKBONES[self.name]
        return backbone.build(backbone.Settings(), data, dim)

    def batch(self, data: Interactions, size: int = 64) -> Batch:
        return next(self.build(data).sampler(data.train, size).epoch(np.random.default_rng(0)))

    def test_shapes_users_first(self, checkerboard: Interactions) -> None:
        model = self.build(checkerboard)
        assert model.features.shape == (checkerboard.num_users + checkerboard.num_items, 8)
        users, items = model.final_embeddings()
        assert users.shape == (checkerboard.num_users, 8)
        assert items.shape == (checkerboard.num_items, 8)
        assert not users.requires_grad
        assert not items.requires_grad

    def test_its_embeddings_are_its_table_if_it_says_so(self, checkerboard: Interactions) -> None:
        model = self.build(checkerboard)
        assert (model.embeddings() is model.features) == model.is_table
        assert model.is_table <= isinstance(model.features, torch.nn.Parameter)

    def test_a_marked_table_gets_the_same_gradient_of_the_batch_alone(self, checkerboard: Interactions) -> None:
        model = self.build(checkerboard, dim=100)
        batch = self.batch(checkerboard, 3)
        (dense,) = torch.autograd.grad(model.base_loss(batch, model.embeddings()), [model.features])
        mark_row_sparse(model.features)
        (gradient,) = torch.autograd.grad(model.base_loss(batch, model.embeddings()), [model.features])
        torch.testing.assert_close(gradient.to_dense(), dense)
        if model.is_table:
            items = torch.cat([batch.positives, batch.negatives])
            touched = torch.unique(torch.cat([batch.users, model.num_users + items]))
            assert gradient.is_sparse
            assert gradient.coalesce().indices()[0].tolist() == touched.tolist()

    def test_a_seed_fixes_the_initial_embeddings(self, checkerboard: Interactions) -> None:
        one, again, other = (self.build(checkerboard, seed).features.detach() for seed in (1, 1, 2))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)

    def test_base_loss_is_a_finite_scalar_whose_gradient_reaches_the_features(self, checkerboard: Interactions) -> None:
        model = self.build(checkerboard)
        loss = model.base_loss(self.batch(checkerboard), model.embeddings())
        assert loss.shape == ()
        assert loss.item() > 0
        assert bool(torch.isfinite(loss))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        assert all(bool(gradient.any()) for gradient in gradients)

    def test_base_loss_is_a_sum_over_the_batch(self, checkerboard: Interactions) -> None:
        model = self.build(checkerboard)
        batch = self.batch(checkerboard)
        parts = [
            Batch(batch.users[part], batch.positives[part], batch.negatives[part])
            for part in (slice(0, 20), slice(20, None))
        ]
        total = sum(model.base_loss(part, model.embeddings()).item() for part in parts)
        assert model.base_loss(batch, model.embeddings()).item() == pytest.approx(total, rel=1e-5)

    def test_training_ranks_the_held_out_diagonal_first(self, checkerboard: Interactions) -> None:
        model = self.build(checkerboard, dim=2)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        sampler = model.sampler(checkerboard.train, 64)
        rng = np.random.default_rng(0)
        for _ in range(self.epochs):
            for batch in sampler.epoch(rng):
                optimizer.zero_grad()
                torch.autograd.backward(model.base_loss(batch, model.embeddings()))
                optimizer.step()
        protocol = Protocol(mask="train+validation", cutoffs=(1,))
        assert evaluate(*model.final_embeddings(), checkerboard, protocol).metrics["Recall@1"] == 1.0
