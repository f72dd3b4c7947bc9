from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import distill.graph.spectrum
from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import Graph, build_graph
from distill.graph.spectrum import equal_width_groups, exact_spectrum
from distill.methods import Teacher
from distill.methods.fd import FeatureDistillation
from distill.methods.freqd import FeatureSettings, FreqD, FreqDSettings
from distill.methods.projector import ProjectorKind
from distill.methods.spectral import SpectralSettings, SpectralWeights, frequency_weights
from tests.distill.toy import build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit

GRAPHS: tuple[Graph, ...] = ("bipartite", "cooccurrence")
PROJECTORS: tuple[ProjectorKind, ...] = ("linear", "mlp")


class TestSpectralWeights(MethodKit):
    name = "spectral"


class TestLowGroups(MethodKit):
    name = "spectral"
    settings = SpectralSettings(allocation="low", projector="experts", variant="cooccurrence", num_groups=5)


@pytest.fixture
def data(rng: np.random.Generator) -> Interactions:
    return build_random(rng)


@pytest.fixture
def student(data: Interactions) -> BPRMF:
    torch.manual_seed(4)
    return BPRMF(data.num_users, data.num_items, 4)


@pytest.fixture
def teacher(data: Interactions) -> Teacher:
    torch.manual_seed(5)
    return Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)


def assert_same_loss(one: SpectralWeights, two: FreqD, data: Interactions, student: BPRMF) -> None:
    one.load_state_dict(two.state_dict())
    losses = [method.distillation_loss(build_step(whole_batch(data), student)) for method in (one, two)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    gradients = [
        torch.autograd.grad(loss, [student.table, *method.parameters()])
        for loss, method in zip(losses, (one, two), strict=True)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("variant", GRAPHS)
@pytest.mark.parametrize("projector", PROJECTORS)
def test_uniform_weights_are_feature_distillation_of_all_entities(
    data: Interactions, student: BPRMF, teacher: Teacher, variant: Graph, projector: ProjectorKind
) -> None:
    ours = SpectralSettings(allocation="uniform", variant=variant, projector=projector)
    theirs = FeatureSettings(loss="l2", projector=projector)
    assert_same_loss(
        SpectralWeights.build(ours, data, student, teacher),
        FeatureDistillation.build(theirs, data, student, teacher),
        data,
        student,
    )


@pytest.mark.parametrize("variant", GRAPHS)
@pytest.mark.parametrize("projector", PROJECTORS)
def test_freqd_weights_are_the_filter_of_all_entities(
    data: Interactions, student: BPRMF, teacher: Teacher, variant: Graph, projector: ProjectorKind
) -> None:
    ours = SpectralSettings(alpha=0.4, variant=variant, projector=projector, num_neighbors=3)
    theirs = FreqDSettings(
        loss="l2",
        alpha=0.4,
        variant=variant,
        projector=projector,
        num_neighbors=3,
        order="projector-first",
        keep_prob=1,
    )
    assert_same_loss(
        SpectralWeights.build(ours, data, student, teacher),
        FreqD.build(theirs, data, student, teacher),
        data,
        student,
    )


def test_group_weights_weigh_the_energies_that_an_analysis_reports(
    data: Interactions, student: BPRMF, teacher: Teacher
) -> None:
    weights = (3.0, 0.0, 0.5, 0.0, 2.0)
    settings = SpectralSettings(distillation_weight=2.0, group_weights=weights, allocation="uniform")
    method = SpectralWeights.build(settings, data, student, teacher)
    loss = method.distillation_loss(build_step(whole_batch(data), student)).item()
    with torch.no_grad():
        users, items = student.final_embeddings()
        projected = torch.cat([method.user_projector(users), method.item_projector(items)])
    groups = equal_width_groups(exact_spectrum(build_graph(data, "bipartite", 5)), len(weights))
    assert loss == pytest.approx(
        2.0 * float(groups.energies((teacher.features - projected).numpy()) @ weights), rel=1e-5
    )


def test_allocations_by_hand() -> None:
    frequencies = np.array([0.0, 0.1, 0.5 - 1e-8, 1.0, 1.4, 2.0])

    def weights(**given: Any) -> list[float]:
        return list(frequency_weights(SpectralSettings(**given), frequencies))

    assert weights(allocation="uniform") == [1.0] * 6
    assert weights(allocation="freqd", alpha=0.5) == pytest.approx([1.0, 0.9025, 0.5625, 0.25, 0.09, 0.0])
    # Four groups, 0.5 wide: a frequency on a boundary (give or take rounding) belongs to the upper.
    assert weights(allocation="high", num_groups=4) == [0.25, 0.25, 0.75, 1.25, 1.25, 1.75]
    assert weights(allocation="low", num_groups=4) == [1.75, 1.75, 1.25, 0.75, 0.75, 0.25]
    assert weights(group_weights=(7.0, 8.0)) == [7.0, 7.0, 7.0, 8.0, 8.0, 8.0]
    assert weights(group_weights=(7.0,)) == [7.0] * 6


def test_a_large_graph_is_refused(
    data: Interactions, student: BPRMF, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill.graph.spectrum, "MAX_ENTITIES", 54)
    with pytest.raises(SettingError, match="55 entities exceed the 54 of an exact eigenbasis"):
        SpectralWeights.build(SpectralSettings(), data, student, teacher)


@pytest.mark.parametrize(
    "wrong",
    [
        {"distillation_weight": -0.1},
        {"alpha": -0.1},
        {"num_groups": 0},
        {"num_neighbors": 0},
        {"group_weights": ()},
        {"group_weights": (1.0, -1.0)},
        {"group_weights": (0.0, 0.0)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        SpectralSettings(**wrong)
