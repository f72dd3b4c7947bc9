from __future__ import annotations

import numpy as np
import torch

from distill.backbones.bprmf import BPRMF
from distill.methods import METHODS, MethodSettings
from tests.distill.toy import build_random, whole_batch


def test_scratch_adds_nothing_and_needs_no_teacher(rng: np.random.Generator) -> None:
    data = build_random(rng)
    student = BPRMF(data.num_users, data.num_items, 4)
    method = METHODS["scratch"].build(MethodSettings(), data, student, None)
    assert method.distillation_loss(whole_batch(data), student, torch.Generator()) is None
    assert not method.needs_teacher
    assert not list(method.parameters())
