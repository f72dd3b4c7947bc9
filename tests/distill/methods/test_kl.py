from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill.backbones.bprmf import BPRMF
from distill.methods import Teacher
from distill.methods.kl import KullbackLeibler
from distill.methods.responses import ResponseSettings
from tests.distill.toy import build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit


class TestKullbackLeibler(MethodKit):
    name = "kl"
    learning_rate = 0.1


class TestSmoothedKullbackLeibler(MethodKit):
    name = "kl"
    learning_rate = 0.1
    settings = ResponseSettings(temperature=3.0, alpha=0.5)


def test_loss_is_the_divergence_and_0_for_the_teacher_itself(rng: np.random.Generator) -> None:
    data = build_random(rng)
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    method = KullbackLeibler.build(ResponseSettings(temperature=2.0), data, student, teacher)
    users, items = student.final_embeddings()
    expected = F.kl_div(
        torch.log_softmax((users @ items.T).double() / 2, dim=1),
        torch.softmax((teacher.users @ teacher.items.T).double() / 2, dim=1),
        reduction="sum",
    )
    step = build_step(whole_batch(data), student)
    assert method.distillation_loss(step).item() == pytest.approx(expected.item(), rel=1e-4)

    itself = Teacher(student.features.detach() * 50, data.num_users)
    with torch.no_grad():
        student.table.mul_(50)
    method = KullbackLeibler.build(ResponseSettings(), data, student, itself)
    step = build_step(whole_batch(data), student)
    assert abs(method.distillation_loss(step).item()) < 1e-3
