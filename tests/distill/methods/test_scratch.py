from __future__ import annotations

import numpy as np

from distill.backbones.bprmf import BPRMF
from distill.methods import METHODS
from tests.distill.toy import build_random, build_step, whole_batch


def test_scratch_adds_nothing_and_needs_no_teacher(rng: np.random.Generator) -> None:
    data = build_random(rng)
    student = BPRMF(data.num_users, data.num_items, 4)
    method = METHODS["scratch"].build(None, data, student, None)
    assert method.distillation_loss(build_step(whole_batch(data), student)) is None
    assert not method.needs_teacher
    assert not list(method.parameters())
