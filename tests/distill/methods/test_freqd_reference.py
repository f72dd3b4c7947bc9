"""`reference` against a dense rewrite of the public code's class FreqD (github.com/woriazzc/KDs, 2025-06).

The rewrite keeps its order of work: dense graphs, all entities projected and filtered, one call a role; what is random
there (edges and inputs dropped) is read off our own draw, so that both must agree to rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import top_cooccurrence
from distill.methods import Teacher
from distill.methods.freqd import FeatureSettings, FreqD, FreqDSettings
from distill.methods.projector import ExpertsProjector
from tests.distill.toy import build_random, build_step
from tests.kits.method_kit import MethodKit

REFERENCE = FreqDSettings(reference=True)
STEP_SEED = 9


class TestReference(MethodKit):
    name = "freqd"
    settings = REFERENCE


def build(settings: FreqDSettings, data: Interactions) -> tuple[FreqD, BPRMF, Teacher]:
    torch.manual_seed(4)
    student = BPRMF(data.num_users, data.num_items, 4)
    with torch.no_grad():
        student.table.normal_()
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    return FreqD.build(settings, data, student, teacher), student, teacher


def sym_norm_graph(graph: torch.Tensor) -> torch.Tensor:
    degree = graph.sum(dim=1)
    degree[degree == 0.0] = 1.0
    scale = torch.sqrt(degree)
    return graph / scale[None, :] / scale[:, None]


def public_graph(data: Interactions, kind: str) -> torch.Tensor:
    """Dense Â of one kind, from the graph that `test_graph` compares with the public code's, edge by edge."""
    incidence = data.train if kind == "user" else data.train.T.tocsr()
    return sym_norm_graph(torch.from_numpy(top_cooccurrence(incidence, 5, reference=True).toarray()).double())


def public_projector(projector: ExpertsProjector, rows: torch.Tensor) -> torch.Tensor:
    experts = projector.experts
    outputs = [
        torch.relu(rows @ experts.hidden_weight[k] + experts.hidden_bias[k]) @ experts.output_weight[k]
        + experts.output_bias[k]
        for k in range(len(experts.output_bias))
    ]
    return torch.stack(outputs, dim=-1).mean(dim=-1)


def freq_loss(S: torch.Tensor, T: torch.Tensor, H: torch.Tensor, entities: torch.Tensor, *, norm: bool) -> torch.Tensor:
    S, T = (H @ S)[entities], (H @ T)[entities]
    if norm:
        return (1.0 - (F.normalize(T) * F.normalize(S)).sum(dim=-1)).sum()
    return (T - S).pow(2).sum(dim=-1).sum()


@pytest.mark.parametrize("loss", ["cosine", "l2"])
@pytest.mark.parametrize("keep_prob", [1.0, 0.5])
def test_loss_equals_the_public_formula(rng: np.random.Generator, loss: Any, keep_prob: float) -> None:
    data = build_random(rng)
    settings = replace(REFERENCE, dropout=0.0, keep_prob=keep_prob, loss=loss)
    method, student, teacher = build(settings, data)
    batch = Batch(torch.tensor([3, 3, 7, 0]), torch.tensor([0, 2, 2, 9]), torch.tensor([2, 5, 6, 9]))
    found = method.distillation_loss(build_step(batch, student, STEP_SEED))
    items = torch.cat([batch.positives, batch.negatives])
    entities = torch.cat([torch.unique(batch.users), data.num_users + torch.unique(items)])
    drawn = method._filter.rows(entities, keep_prob=keep_prob, generator=torch.Generator().manual_seed(STEP_SEED))
    size = data.num_users + data.num_items
    H = torch.zeros(size, size, dtype=torch.float64)
    H[entities] = drawn.apply(torch.eye(size)).double()

    user, item = slice(None, data.num_users), slice(data.num_users, None)
    projectors = (method.user_projector.double(), method.item_projector.double())
    total = torch.zeros((), dtype=torch.float64)
    for kind, part, projector, roles in (
        ("user", user, projectors[0], [(1.0, batch.users)]),
        ("item", item, projectors[1], [(0.5, batch.positives), (0.5, batch.negatives)]),
    ):
        assert isinstance(projector, ExpertsProjector)
        adjacency, alpha = public_graph(data, kind), 0.5
        if keep_prob == 1.0:
            own = entities[(entities >= data.num_users) == (kind == "item")]
            whole = adjacency * alpha + torch.eye(len(adjacency), dtype=torch.float64) * (1.0 - alpha)
            torch.testing.assert_close(H[own, part], whole[own - (part.start or 0)], atol=1e-6, rtol=1e-5)
        S, T = public_projector(projector, student.table[part].double()), teacher.features[part].double()
        for weight, rows in roles:
            total = total + weight * freq_loss(S, T, H[part, part], torch.unique(rows), norm=loss == "cosine")
    assert found.item() == pytest.approx(0.5 * total.item(), rel=1e-5)


def test_dropped_edges_are_twice_as_strong_where_they_stay(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, _, _ = build(REFERENCE, data)
    whole = method._filter.matrix.toarray()
    drawn = method._filter.rows(torch.arange(55), keep_prob=0.5, generator=torch.Generator().manual_seed(0))
    ratio = drawn.apply(torch.eye(55)).numpy()[whole > 0] / whole[whole > 0]
    assert sorted(set(ratio.round(5).tolist())) == [0.0, 1.0, 2.0]
    assert float((ratio == 0).sum() / (ratio != 1).sum()) == pytest.approx(0.5, abs=0.1)


def test_it_changes_what_is_left_at_its_default() -> None:
    assert (REFERENCE.variant, REFERENCE.projector, REFERENCE.num_experts, REFERENCE.dropout) == (
        "cooccurrence", "experts", 5, 0.2,
    )  # fmt: skip
    assert (REFERENCE.loss, REFERENCE.distillation_weight, REFERENCE.num_neighbors) == ("cosine", 0.5, 5)
    method, _, _ = build(REFERENCE, build_random(np.random.default_rng(0)))
    completed = method.settings
    assert (completed.alpha, completed.coefficients, completed.keep_prob) == (0.5, (1.0, -0.5), 0.5)
    assert completed.order == "projector-first"
    assert FreqDSettings(reference=True, projector="mlp").projector == "mlp"
    assert replace(FreqDSettings(), num_neighbors=3) == FreqDSettings(num_neighbors=3)


def test_dropout_makes_two_steps_differ(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build(replace(REFERENCE, keep_prob=1.0), data)
    batch = Batch(torch.tensor([3]), torch.tensor([0]), torch.tensor([2]))
    one, again, two = (method.distillation_loss(build_step(batch, student, seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert one.item() != two.item()


@pytest.mark.parametrize("wrong", [{"num_experts": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        FeatureSettings(**wrong)
