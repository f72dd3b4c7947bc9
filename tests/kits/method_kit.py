"""What every distillation method with a teacher must satisfy: a new one's test class inherits this and names it.

class TestFreqD(MethodKit):
    name = "freqd"
    settings = FreqDSettings(variant="cooccurrence")
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch, PairwiseSampler
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import METHODS, Method, Teacher
from distill.rows import mark_row_sparse
from tests.distill.toy import build_random, build_step

TEACHER_DIM = 12
READS_ALL = {"spectral"}
"""Methods whose every step is about all entities: a dense gradient, on graphs of bounded size."""
MASKS_ITEMS = {"ce", "hetcomp", "rcekd"}
"""Methods that read items which they then leave out: their gradient is 0."""


class MethodKit:
    """Attributes: name in `METHODS`; the settings it is tested under, its defaults where None; the learning rate
    with which it gets better in 20 steps."""

    name: ClassVar[str]
    settings: ClassVar[Any] = None
    learning_rate: ClassVar[float] = 0.01

    @pytest.fixture
    def data(self, rng: np.random.Generator) -> Interactions:
        return build_random(rng)

    @pytest.fixture
    def student(self, data: Interactions) -> BPRMF:
        torch.manual_seed(1)
        return BPRMF(data.num_users, data.num_items, 4)

    @pytest.fixture
    def batch(self, data: Interactions, rng: np.random.Generator) -> Batch:
        return next(PairwiseSampler(data.train, 40).epoch(rng))

    def build(self, data: Interactions, student: BPRMF, settings: Any = None) -> Method:
        torch.manual_seed(2)
        first, *past = (torch.randn(data.num_users + data.num_items, TEACHER_DIM) for _ in range(3))
        teacher = Teacher(first, data.num_users, tuple(features.half() for features in past))
        method = METHODS[self.name].build(settings or self.own_settings(), data, student, teacher)
        method.begin_epoch(student, np.random.default_rng(4))
        return method

    def own_settings(self) -> Any:
        return self.settings or METHODS[self.name].Settings()

    def loss(self, method: Method, batch: Batch, student: BPRMF, seed: int = 3) -> torch.Tensor:
        loss = method.distillation_loss(build_step(batch, student, seed))
        assert loss is not None
        return loss

    def test_loss_is_a_finite_positive_scalar(self, data: Interactions, student: BPRMF, batch: Batch) -> None:
        loss = self.loss(self.build(data, student), batch, student)
        assert loss.shape == ()
        assert bool(torch.isfinite(loss))
        assert loss.item() > 0

    def test_gradients_reach_the_student_and_every_parameter(
        self, data: Interactions, student: BPRMF, batch: Batch
    ) -> None:
        method = self.build(data, student)
        gradients = torch.autograd.grad(
            self.loss(method, batch, student), [*student.parameters(), *method.parameters()]
        )
        for gradient in gradients:
            assert bool(torch.isfinite(gradient).all())
            assert bool(gradient.any())

    def test_weight_scales_the_loss_and_0_silences_it(self, data: Interactions, student: BPRMF, batch: Batch) -> None:
        losses = [
            self.loss(
                self.build(data, student, replace(self.own_settings(), distillation_weight=w)), batch, student
            ).item()
            for w in (0.0, 1.0, 3.0)
        ]
        assert losses[0] == 0.0
        assert losses[2] == pytest.approx(3 * losses[1], rel=1e-6)

    def test_loss_repeats_with_its_generator(self, data: Interactions, student: BPRMF, batch: Batch) -> None:
        one, two = (self.loss(self.build(data, student), batch, student, seed=5) for _ in range(2))
        assert torch.equal(one, two)

    def test_a_gradient_step_lowers_the_loss(self, data: Interactions, student: BPRMF, batch: Batch) -> None:
        method = self.build(data, student)
        optimizer = torch.optim.Adam([*student.parameters(), *method.parameters()], lr=self.learning_rate)
        before = self.loss(method, batch, student).item()
        for _ in range(20):
            optimizer.zero_grad()
            torch.autograd.backward(self.loss(method, batch, student))
            optimizer.step()
        assert self.loss(method, batch, student).item() < 0.95 * before

    def test_a_marked_table_gets_the_same_gradient_of_the_rows_that_have_one(
        self, data: Interactions, student: BPRMF, batch: Batch
    ) -> None:
        method = self.build(data, student)
        few = Batch(*(part[:2] for part in (batch.users, batch.positives, batch.negatives)))
        (dense,) = torch.autograd.grad(self.loss(method, few, student), [student.table])
        mark_row_sparse(student.table)
        (gradient,) = torch.autograd.grad(self.loss(method, few, student), [student.table])
        torch.testing.assert_close(gradient.to_dense(), dense)
        assert gradient.is_sparse == (self.name not in READS_ALL)
        if not gradient.is_sparse:
            return
        touched = torch.zeros(len(dense), dtype=torch.bool).index_fill_(0, gradient.coalesce().indices()[0], value=True)
        for row in (touched & ~dense.any(dim=1)).nonzero().ravel().tolist():
            assert self.reads(method, few, student, row) or (row >= data.num_users and self.name in MASKS_ITEMS)

    def reads(self, method: Method, batch: Batch, student: BPRMF, row: int) -> bool:
        """Whether a row spoils the loss where it is no number."""
        spoilt = copy.deepcopy(student)
        with torch.no_grad():
            spoilt.table[row] = torch.nan
        return not bool(torch.isfinite(self.loss(method, batch, spoilt)))

    def test_the_teacher_is_never_trained(self, data: Interactions, student: BPRMF) -> None:
        method = self.build(data, student)
        size = data.num_users + data.num_items
        assert all(parameter.shape[0] != size for parameter in method.parameters())
        assert not any(buffer.requires_grad for buffer in method.buffers())
        assert all(value.shape[:1] != (size,) for value in method.state_dict().values())

    def test_no_teacher_is_refused(self, data: Interactions, student: BPRMF) -> None:
        with pytest.raises(SettingError, match=rf"method '{self.name}' distills from one; give --teacher RUN"):
            METHODS[self.name].build(self.own_settings(), data, student, None)
