from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.graph.adjacency import bipartite_adjacency, symmetric_normalization
from distill.graph.spectrum import exact_spectrum, knowledge_losses
from distill.methods import Teacher
from distill.methods.fd import FeatureDistillation
from distill.methods.freqd import FeatureSettings
from distill.methods.projector import ProjectorKind
from tests.distill.toy import build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit


class TestFeatureDistillation(MethodKit):
    name = "fd"

    def test_only_rows_of_the_batch_get_a_gradient(self, data: Interactions, student: BPRMF) -> None:
        method = self.build(data, student)
        batch = whole_batch(data)
        batch = type(batch)(torch.tensor([3, 5]), torch.tensor([0, 2]), torch.tensor([7, 9]))
        (gradient,) = torch.autograd.grad(self.loss(method, batch, student), [student.table])
        touched = gradient.any(dim=1).nonzero().ravel().tolist()
        assert touched == [3, 5, *(data.num_users + item for item in (0, 2, 7, 9))]


class TestFeatureDistillationMLP(MethodKit):
    name = "fd"
    settings = FeatureSettings(projector="mlp", loss="l2")


@pytest.mark.parametrize("projector", ["linear", "mlp"])
def test_theorem_1_every_frequency_weighs_alike(rng: np.random.Generator, projector: ProjectorKind) -> None:
    data = build_random(rng)
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(55, 9), data.num_users)
    settings = FeatureSettings(distillation_weight=1.0, projector=projector, loss="l2")
    method = FeatureDistillation.build(settings, data, student, teacher)
    loss = method.distillation_loss(build_step(whole_batch(data), student)).item()
    with torch.no_grad():
        users, items = student.final_embeddings()
        projected = torch.cat([method.user_projector(users), method.item_projector(items)]).numpy()
    basis = exact_spectrum(symmetric_normalization(bipartite_adjacency(data.train))).eigenvectors
    assert loss == pytest.approx(knowledge_losses(basis, teacher.features.numpy(), projected).sum(), rel=1e-5)
