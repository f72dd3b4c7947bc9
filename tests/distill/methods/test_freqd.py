from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill.backbones.bprmf import BPRMF
from distill.backbones.lightgcn import LightGCN, LightGCNSettings
from distill.backbones.sampling import Batch, PairwiseSampler
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph import filters
from distill.graph.adjacency import (
    Graph,
    bipartite_adjacency,
    cooccurrence_adjacency,
    laplacian,
    symmetric_normalization,
    top_cooccurrence,
)
from distill.graph.filters import response
from distill.graph.spectrum import exact_spectrum, knowledge_losses
from distill.methods import Teacher, freqd
from distill.methods.fd import FeatureDistillation
from distill.methods.features import FeatureLoss
from distill.methods.freqd import FeatureSettings, FilterKind, FreqD, FreqDSettings, Order, fill_published
from distill.methods.projector import ExpertsProjector, LinearProjector, ProjectorKind
from tests.distill.toy import build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit

TEACHER_DIM, STUDENT_DIM = 9, 4
VARIANTS: tuple[Graph, ...] = ("bipartite", "cooccurrence")
PROJECTORS: tuple[ProjectorKind, ...] = ("linear", "mlp", "experts")
LOSSES: tuple[FeatureLoss, ...] = ("cosine", "l2")
ORDERS: tuple[Order, ...] = ("filter-first", "projector-first")
FILTERS: tuple[FilterKind, ...] = ("linear", "quadratic")
EVERYTHING = [
    FreqDSettings(variant=variant, projector=projector, loss=loss, order=order, filter=kind, keep_prob=1.0, dropout=0.0)
    for variant, projector, loss, order, kind in product(VARIANTS, PROJECTORS, LOSSES, ORDERS, FILTERS)
]


class TestBipartite(MethodKit):
    name = "freqd"


class TestCooccurrence(MethodKit):
    name = "freqd"
    settings = FreqDSettings(variant="cooccurrence", projector="mlp")


class TestReducedRank(MethodKit):
    name = "freqd"
    settings = FreqDSettings(projector="mlp", teacher_rank=3, hidden_dim=8)


class TestReducedRankWithEdgeDropout(MethodKit):
    name = "freqd"
    settings = FreqDSettings(variant="cooccurrence", teacher_rank=3)


class TestReferenceGraph(MethodKit):
    name = "freqd"
    settings = FreqDSettings(variant="cooccurrence", reference=True, loss="l2", filter="quadratic")


def build(settings: FreqDSettings, data: Interactions) -> tuple[FreqD, BPRMF, Teacher]:
    torch.manual_seed(4)
    student = BPRMF(data.num_users, data.num_items, STUDENT_DIM)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, TEACHER_DIM), data.num_users)
    return FreqD.build(settings, data, student, teacher), student, teacher


def dense_filter(settings: FreqDSettings, data: Interactions) -> torch.Tensor:
    if settings.variant == "bipartite":
        adjacency = bipartite_adjacency(data.train)
    else:
        adjacency = cooccurrence_adjacency(data.train, settings.num_neighbors)
    lap = torch.from_numpy(laplacian(symmetric_normalization(adjacency)).toarray()).double()
    identity = torch.eye(len(lap), dtype=torch.float64)
    alpha = {"bipartite": 0.2, "cooccurrence": 0.5}[settings.variant] if settings.alpha is None else settings.alpha
    linear = (1 - alpha) * identity + alpha * (identity - lap)
    return linear if settings.filter == "linear" else linear @ linear


def project(method: FreqD, features: torch.Tensor, num_users: int) -> torch.Tensor:
    return torch.cat([method.user_projector(features[:num_users]), method.item_projector(features[num_users:])])


def whole_matrix_loss(
    method: FreqD, data: Interactions, batch: Batch, X_s: torch.Tensor, X_t: torch.Tensor
) -> torch.Tensor:
    """The module's formula over all N rows; only then are the batch's picked."""
    settings = method.settings
    H = dense_filter(settings, data)
    if settings.order == "filter-first":
        student = project(method, H @ X_s, data.num_users)
    else:
        student = H @ project(method, X_s, data.num_users)
    teacher = H @ X_t
    if settings.loss == "cosine":
        losses = 1 - F.cosine_similarity(student, teacher)
    else:
        losses = (student - teacher).square().sum(dim=1)
    users, items = losses[: data.num_users], losses[data.num_users :]
    total = users[torch.unique(batch.users)].sum()
    total = total + 0.5 * items[torch.unique(batch.positives)].sum() + 0.5 * items[torch.unique(batch.negatives)].sum()
    return settings.distillation_weight * total


def label(settings: FreqDSettings) -> str:
    return "-".join((settings.variant, settings.projector, settings.loss, str(settings.order), settings.filter))


@pytest.mark.parametrize("settings", EVERYTHING, ids=label)
def test_batch_loss_equals_the_whole_matrix_formula_with_gradients(
    rng: np.random.Generator, settings: FreqDSettings
) -> None:
    data = build_random(rng)
    method, student, teacher = build(settings, data)
    batch = next(PairwiseSampler(data.train, 20).epoch(rng))
    found = method.distillation_loss(build_step(batch, student))
    gradients = torch.autograd.grad(found, [student.table, *method.parameters()])

    exact_method = FreqD.build(settings, data, student, teacher)
    exact_method.load_state_dict(method.state_dict())
    exact_method.double()
    X_s = student.table.detach().double().requires_grad_()
    exact = whole_matrix_loss(exact_method, data, batch, X_s, teacher.features.double())
    expected = torch.autograd.grad(exact, [X_s, *exact_method.parameters()])

    assert found.item() == pytest.approx(exact.item(), rel=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        scale = float(theirs.abs().max())
        np.testing.assert_allclose(ours.numpy() / scale, theirs.numpy() / scale, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("loss", LOSSES)
def test_alpha_0_is_feature_distillation_exactly(
    rng: np.random.Generator, variant: Graph, projector: ProjectorKind, loss: FeatureLoss
) -> None:
    data = build_random(rng)
    settings = FreqDSettings(
        variant=variant,
        projector=projector,
        loss=loss,
        order="filter-first",
        alpha=0.0,
        dropout=0.0,
    )
    method, student, teacher = build(settings, data)
    plain = FeatureDistillation.build(settings, data, student, teacher)
    plain.load_state_dict(method.state_dict())
    batch = next(PairwiseSampler(data.train, 20).epoch(rng))
    results = []
    for either in (method, plain):
        value = either.distillation_loss(build_step(batch, student))
        results.append([value, *torch.autograd.grad(value, [student.table, *either.parameters()])])
    for filtered, unfiltered in zip(*results, strict=True):
        torch.testing.assert_close(filtered, unfiltered, rtol=1e-6, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("coefficients", [(1.0, -0.5), (1.0, -0.4, 0.04), (0.2, 0.0, 0.7)])
def test_each_frequency_weighs_its_squared_response(
    rng: np.random.Generator, variant: Graph, projector: ProjectorKind, coefficients: tuple[float, ...]
) -> None:
    """Σ_i ‖(h(L) (X_t − P(X_s)))_i‖² = Σ_k h(λ_k)² ‖u_kᵀ (X_t − P(X_s))‖², in the exact eigenbasis."""
    data = build_random(rng)
    settings = FreqDSettings(
        distillation_weight=1.0,
        variant=variant,
        projector=projector,
        loss="l2",
        coefficients=coefficients,
        order="projector-first",
        keep_prob=1.0,
        dropout=0.0,
    )
    method, student, teacher = build(settings, data)
    loss = method.distillation_loss(build_step(whole_batch(data), student)).item()
    adjacency = bipartite_adjacency(data.train) if variant == "bipartite" else cooccurrence_adjacency(data.train, 5)
    spectrum = exact_spectrum(symmetric_normalization(adjacency))
    with torch.no_grad():
        projected = project(method, student.table, data.num_users).numpy()
    parts = knowledge_losses(spectrum.eigenvectors, teacher.features.numpy(), projected)
    weights = response(coefficients, spectrum.frequencies) ** 2
    assert loss == pytest.approx(float(weights @ parts), rel=1e-5)
    assert abs(loss - float(parts.sum())) > 0.01 * loss, "the filter must matter for this test to mean anything"


@pytest.mark.parametrize("loss", LOSSES)
def test_a_linear_projector_commutes_with_the_cooccurrence_filter(rng: np.random.Generator, loss: FeatureLoss) -> None:
    data = build_random(rng)
    settings = FreqDSettings(variant="cooccurrence", loss=loss, keep_prob=1.0)
    batch = next(PairwiseSampler(data.train, 20).epoch(rng))
    first, student, teacher = build(replace(settings, order="filter-first"), data)
    second = FreqD.build(replace(settings, order="projector-first"), data, student, teacher)
    second.load_state_dict(first.state_dict())
    one, two = (method.distillation_loss(build_step(batch, student)) for method in (first, second))
    torch.testing.assert_close(one, two)


def test_the_order_matters_where_users_and_items_mix(rng: np.random.Generator) -> None:
    data = build_random(rng)
    batch = whole_batch(data)
    first, student, teacher = build(FreqDSettings(order="filter-first"), data)
    second = FreqD.build(FreqDSettings(order="projector-first"), data, student, teacher)
    second.load_state_dict(first.state_dict())
    one, two = (method.distillation_loss(build_step(batch, student)).item() for method in (first, second))
    assert abs(one - two) > 1e-3 * one


@pytest.mark.parametrize("settings", [FreqDSettings(), FreqDSettings(variant="cooccurrence", keep_prob=1.0)])
def test_the_teacher_is_filtered_once(rng: np.random.Generator, settings: FreqDSettings) -> None:
    data = build_random(rng)
    method, student, teacher = build(settings, data)
    targets = method.get_buffer("_targets")
    expected = dense_filter(settings, data) @ teacher.features.double()
    np.testing.assert_allclose(targets.numpy(), expected.numpy(), atol=1e-5)
    # Were the teacher read again in a step, other features would change the loss.
    before = method.distillation_loss(build_step(whole_batch(data), student))
    teacher.features.zero_()
    assert torch.equal(method.distillation_loss(build_step(whole_batch(data), student)), before)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_edge_dropout_drops_the_same_edges_for_student_and_teacher(
    rng: np.random.Generator, order: Order, variant: Graph
) -> None:
    """A student that equals its teacher has no loss, whichever edges are dropped."""
    data = build_random(rng)
    settings = FreqDSettings(
        variant=variant,
        loss="l2",
        order=order,
        keep_prob=0.5,
    )
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, STUDENT_DIM)
    with torch.no_grad():
        student.table.normal_()
    method = FreqD.build(settings, data, student, Teacher(student.table.detach().clone(), data.num_users))
    for projector in (method.user_projector, method.item_projector):
        assert isinstance(projector, LinearProjector)
        with torch.no_grad():
            projector.weight.copy_(torch.eye(STUDENT_DIM))
    generator = torch.Generator().manual_seed(0)
    assert (
        abs(method.distillation_loss(replace(build_step(whole_batch(data), student), generator=generator)).item())
        < 1e-3
    )
    with torch.no_grad():
        student.table.neg_()
    one, two = (
        method.distillation_loss(replace(build_step(whole_batch(data), student), generator=generator)).item()
        for _ in range(2)
    )
    assert one > 10
    assert one != two, "edges are dropped anew at each step"


def test_a_share_of_the_steps_distills_and_weighs_as_much_as_all(rng: np.random.Generator) -> None:
    data = build_random(rng)
    whole, student, _ = build(FreqDSettings(), data)
    quarter, _, _ = build(FreqDSettings(step_share=0.25), data)
    batch = next(PairwiseSampler(data.train, 20).epoch(rng))
    losses = [quarter.distillation_loss(build_step(batch, student, seed)) for seed in range(400)]
    distilled = [loss.item() for loss in losses if loss.requires_grad]
    expected = whole.distillation_loss(build_step(batch, student))
    np.testing.assert_allclose(distilled, 4 * expected.item(), rtol=1e-6)
    assert 70 < len(distilled) < 130


@pytest.mark.parametrize("loss", LOSSES)
def test_a_reduced_rank_is_the_loss_of_a_projector_that_ends_in_the_leading_directions(
    rng: np.random.Generator, loss: FeatureLoss
) -> None:
    data = build_random(rng)
    reduced, student, teacher = build(FreqDSettings(loss=loss, teacher_rank=3), data)
    whole = FreqD.build(FreqDSettings(loss=loss), data, student, teacher)
    rows = whole.get_buffer("_targets")
    counted = F.normalize(rows) if loss == "cosine" else rows
    directions = torch.linalg.svd(counted, full_matrices=False).Vh[:3].flip(0)
    coordinates = reduced.get_buffer("_targets")
    signs = torch.sign((rows @ directions.T * coordinates).sum(dim=0))
    state = {name: (directions.T * signs) @ value for name, value in reduced.state_dict().items()}
    whole.load_state_dict(state)
    batch = next(PairwiseSampler(data.train, 20).epoch(rng))
    one, two = (method.distillation_loss(build_step(batch, student)) for method in (reduced, whole))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [FreqDSettings(), FreqDSettings(teacher_rank=3), FreqDSettings(keep_prob=0.5)])
def test_the_teacher_is_filtered_by_blocks_as_at_once(
    rng: np.random.Generator, settings: FreqDSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = build_random(rng)
    whole, *_ = build(settings, data)
    for module in (filters, freqd):
        monkeypatch.setattr(module, "BLOCK_NUMBERS", 7 * TEACHER_DIM)
    parts, _, teacher = build(settings, data)
    assert torch.equal(parts._target_norms, whole._target_norms)
    if settings.teacher_rank is None:
        assert torch.equal(parts._targets, whole._targets)
        assert (parts._targets is teacher.features) == parts._drops_edges
    signs = torch.sign(parts._targets[0] * whole._targets[0])
    torch.testing.assert_close(parts._targets, whole._targets * signs)


def test_a_rank_that_the_teacher_does_not_exceed_changes_nothing(rng: np.random.Generator) -> None:
    data = build_random(rng)
    plain, _, _ = build(FreqDSettings(), data)
    ranked, _, _ = build(FreqDSettings(teacher_rank=TEACHER_DIM), data)
    assert torch.equal(plain.get_buffer("_targets"), ranked.get_buffer("_targets"))


def test_a_propagated_student_is_compared_as_it_scores_or_as_it_is_stored(rng: np.random.Generator) -> None:
    data = build_random(rng)
    torch.manual_seed(0)
    student = LightGCN.build(LightGCNSettings(), data, STUDENT_DIM)
    batch = next(PairwiseSampler(data.train, 20).epoch(rng))
    step = build_step(batch, student)
    losses = {}
    for name in ("final", "raw"):
        method = build(replace(FreqDSettings(), student_features=name), data)[0]
        losses[name] = method.distillation_loss(step)
    plain = build(FreqDSettings(), data)[0]
    expected = plain.distillation_loss(replace(step, features=step.embeddings))
    assert torch.equal(losses["final"], expected)
    assert torch.equal(losses["raw"], plain.distillation_loss(replace(step, embeddings=step.features)))
    assert losses["final"].item() != losses["raw"].item()


def test_published_settings_fill_what_is_left_open() -> None:
    bipartite, cooccurrence = fill_published(FreqDSettings()), fill_published(FreqDSettings(variant="cooccurrence"))
    assert (bipartite.coefficients, bipartite.order, bipartite.keep_prob) == ((1.0, -0.2), "filter-first", 1.0)
    assert (cooccurrence.coefficients, cooccurrence.order, cooccurrence.keep_prob) == (
        (1.0, -0.5),
        "projector-first",
        0.5,
    )
    given = FreqDSettings(alpha=0.1, filter="quadratic", order="projector-first", keep_prob=0.9)
    assert fill_published(given).coefficients == pytest.approx((1.0, -0.2, 0.01))
    assert replace(fill_published(given), coefficients=None) == given
    assert fill_published(FreqDSettings(coefficients=(2.0,), alpha=0.3)).coefficients == (2.0,)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"distillation_weight": -0.1}, "distillation_weight"),
        ({"alpha": 1.5}, "alpha"),
        ({"keep_prob": 0.0}, "keep_prob"),
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"hidden_dim": 0}, "hidden_dim"),
        ({"teacher_rank": 0}, "teacher_rank"),
        ({"step_share": 0.0}, "step_share"),
        ({"step_share": 1.1}, "step_share"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        replace(FreqDSettings(), **wrong)


# `reference` against a dense rewrite of the public code's class FreqD (github.com/woriazzc/KDs, 2025-06). The rewrite
# keeps its order of work: dense graphs, all entities projected and filtered, one call a role; what is random there
# (edges and inputs dropped) is read off our own draw, so that both must agree to rounding.
REFERENCE = FreqDSettings(reference=True)
STEP_SEED = 9


class TestReference(MethodKit):
    name = "freqd"
    settings = REFERENCE


def build_reference(settings: FreqDSettings, data: Interactions) -> tuple[FreqD, BPRMF, Teacher]:
    """As `build`, with a student whose rows are as long as the teacher's."""
    method, student, teacher = build(settings, data)
    with torch.no_grad():
        student.table.normal_()
    return method, student, teacher


def sym_norm_graph(graph: torch.Tensor) -> torch.Tensor:
    degree = graph.sum(dim=1)
    degree[degree == 0.0] = 1.0
    scale = torch.sqrt(degree)
    return graph / scale[None, :] / scale[:, None]


def public_graph(data: Interactions, kind: str) -> torch.Tensor:
    """Dense Â of one kind, from the graph that `test_adjacency` compares with the public code's, edge by edge."""
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
    method, student, teacher = build_reference(settings, data)
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
    method, _, _ = build_reference(REFERENCE, data)
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
    method, _, _ = build_reference(REFERENCE, build_random(np.random.default_rng(0)))
    completed = method.settings
    assert (completed.alpha, completed.coefficients, completed.keep_prob) == (0.5, (1.0, -0.5), 0.5)
    assert completed.order == "projector-first"
    assert FreqDSettings(reference=True, projector="mlp").projector == "mlp"
    assert replace(FreqDSettings(), num_neighbors=3) == FreqDSettings(num_neighbors=3)


def test_dropout_makes_two_steps_differ(rng: np.random.Generator) -> None:
    data = build_random(rng)
    method, student, _ = build_reference(replace(REFERENCE, keep_prob=1.0), data)
    batch = Batch(torch.tensor([3]), torch.tensor([0]), torch.tensor([2]))
    one, again, two = (method.distillation_loss(build_step(batch, student, seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert one.item() != two.item()


@pytest.mark.parametrize("wrong", [{"num_experts": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_expert_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        FeatureSettings(**wrong)
