from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import METHODS, Method, Teacher
from distill.methods.cpd import Preference, PreferenceConsistency, PreferenceSettings
from distill.methods.de import DistillationExpertsSettings
from distill.methods.fd import FeatureDistillation
from distill.methods.freqd import FeatureSettings, FreqDSettings
from distill.methods.projector import LinearProjector, ProjectorKind
from tests.distill.toy import build_random, build_step
from tests.kits.method_kit import MethodKit

PREFERENCES: tuple[Preference, ...] = ("list", "pair")
PROJECTORS: tuple[ProjectorKind, ...] = ("linear", "mlp", "experts")
TEACHER_DIM, STUDENT_DIM = 9, 4
BATCH = Batch(torch.tensor([7, 3, 3, 12]), torch.tensor([1, 2, 5, 5]), torch.tensor([4, 4, 8, 2]))


class TestFeatureDistillationKeepingLists(MethodKit):
    name = "fd"
    settings = FeatureSettings(preference_weight=0.5)


class TestFreqDKeepingPairs(MethodKit):
    name = "freqd"
    settings = FreqDSettings(preference_weight=0.5, preference="pair", projector="mlp", variant="cooccurrence")


class TestExpertsKeepingLists(MethodKit):
    name = "de"
    settings = DistillationExpertsSettings(preference_weight=0.1, num_experts=3)


@pytest.fixture
def data(rng: np.random.Generator) -> Interactions:
    return build_random(rng)


@pytest.fixture
def student(data: Interactions) -> BPRMF:
    torch.manual_seed(4)
    student = BPRMF(data.num_users, data.num_items, STUDENT_DIM)
    with torch.no_grad():
        student.table.normal_()
    return student


@pytest.fixture
def teacher(data: Interactions) -> Teacher:
    torch.manual_seed(5)
    return Teacher(torch.randn(data.num_users + data.num_items, TEACHER_DIM), data.num_users)


def build(name: str, settings: Any, data: Interactions, student: BPRMF, teacher: Teacher) -> Method:
    torch.manual_seed(6)
    method = METHODS[name].build(settings, data, student, teacher)
    method.begin_epoch(student, np.random.default_rng(1))
    return method


def build_fd(settings: FeatureSettings, data: Interactions, student: BPRMF, teacher: Teacher) -> FeatureDistillation:
    method = build("fd", settings, data, student, teacher)
    assert isinstance(method, FeatureDistillation)
    return method


def drawn_items(method: FeatureDistillation) -> torch.Tensor:
    assert method.preference is not None
    return method.preference.get_buffer("_drawn")


@pytest.mark.parametrize("preference", PREFERENCES)
@pytest.mark.parametrize("projector", PROJECTORS)
def test_the_add_on_equals_its_formula_and_moves_projectors_alone(
    data: Interactions, student: BPRMF, teacher: Teacher, preference: Preference, projector: ProjectorKind
) -> None:
    common: dict[str, Any] = {"distillation_weight": 2.0, "projector": projector, "dropout": 0.0}
    given = FeatureSettings(**common, preference_weight=0.3, preference=preference, preference_items=3)
    plain = build_fd(FeatureSettings(**common), data, student, teacher)
    method = build_fd(given, data, student, teacher)
    plain.load_state_dict(method.state_dict())

    expected = torch.zeros(())
    for user in (3, 7, 12):
        items = drawn_items(method)[user]
        own = (student.table[user] @ student.table[data.num_users + items].T).detach()
        rows = student.table[data.num_users + items].detach()
        projected = method.user_projector(student.table[[user]].detach()) @ method.item_projector(rows).T
        if preference == "list":
            target, found = torch.softmax(own / 0.1, dim=0), torch.log_softmax(projected[0] / 0.1, dim=0)
            expected = expected + (target * (torch.log_softmax(own / 0.1, dim=0) - found)).sum()
        else:
            product = (projected[0, 0] - projected[0, 1]) * (own[0] - own[1])
            expected = expected - torch.log(torch.sigmoid(product))

    losses = [one.distillation_loss(build_step(BATCH, student)) for one in (method, plain)]
    assert (losses[0] - losses[1]).item() == pytest.approx(0.6 * expected.item(), rel=1e-3, abs=1e-4)
    students = [torch.autograd.grad(loss, student.table, retain_graph=True)[0] for loss in losses]
    assert torch.equal(*students), "the student's rows are held fixed in the add-on"
    weights = [list(one.parameters()) for one in (method, plain)]
    gradients = [torch.autograd.grad(loss, own) for loss, own in zip(losses, weights, strict=True)]
    explicit = torch.autograd.grad(0.6 * expected, weights[0])
    for with_it, without, ours in zip(*gradients, explicit, strict=True):
        torch.testing.assert_close(with_it - without, ours, rtol=1e-3, atol=1e-4 * float(with_it.abs().max()))


def test_projectors_that_keep_angles_and_lengths_cost_nothing(
    data: Interactions, student: BPRMF, teacher: Teacher
) -> None:
    method = build_fd(FeatureSettings(preference_weight=1.0), data, student, teacher)
    plain = build_fd(FeatureSettings(), data, student, teacher)
    basis = torch.linalg.qr(torch.randn(TEACHER_DIM, STUDENT_DIM)).Q
    for projector in (method.user_projector, method.item_projector):
        assert isinstance(projector, LinearProjector)
        with torch.no_grad():
            projector.weight.copy_(basis)
    plain.load_state_dict(method.state_dict())
    one, two = (either.distillation_loss(build_step(BATCH, student)) for either in (method, plain))
    torch.testing.assert_close(one, two)


def test_items_come_from_the_teachers_top_and_are_drawn_once_an_epoch(
    data: Interactions, student: BPRMF, teacher: Teacher
) -> None:
    settings = PreferenceSettings(preference_weight=1.0, preference_items=4)
    preference = PreferenceConsistency.build(settings, data, teacher)
    assert preference is not None
    ranked = (teacher.users @ teacher.items.T).argsort(dim=1, descending=True)
    places, epochs = torch.zeros(data.num_items), []
    for epoch in range(200):
        preference.begin_epoch(np.random.default_rng(epoch))
        drawn = preference.get_buffer("_drawn")
        assert drawn.shape == (data.num_users, 4)
        assert all(len(row.unique()) == 4 for row in drawn[:3])
        found = (ranked[:, None] == drawn[:, :, None]).nonzero()[:, 2]
        places += torch.bincount(found, minlength=data.num_items)
        epochs.append(drawn.tolist())
    assert epochs[0] != epochs[1]
    thirds = places[:24].view(3, 8).sum(dim=1)
    assert thirds[0] > 1.5 * thirds[1] > 1.5 * 1.5 * thirds[2], "high ranks are drawn more often"


def test_a_weight_of_0_ranks_nothing(data: Interactions, student: BPRMF, teacher: Teacher) -> None:
    assert PreferenceConsistency.build(PreferenceSettings(), data, teacher) is None
    assert build_fd(FeatureSettings(), data, student, teacher).preference is None


def test_a_batch_of_one_user_is_enough_and_duplicates_count_once(
    data: Interactions, student: BPRMF, teacher: Teacher
) -> None:
    method = build_fd(FeatureSettings(preference_weight=1.0), data, student, teacher)
    once = Batch(torch.tensor([5]), torch.tensor([4]), torch.tensor([9]))
    twice = Batch(torch.tensor([5, 5]), torch.tensor([4, 4]), torch.tensor([9, 9]))
    one, two = (method.distillation_loss(build_step(batch, student)) for batch in (once, twice))
    torch.testing.assert_close(one, two)
    assert bool(torch.isfinite(one))


def test_it_trains_the_projectors_to_keep_the_ranking(data: Interactions, student: BPRMF, teacher: Teacher) -> None:
    settings = FeatureSettings(preference_weight=1.0, preference="pair")
    method = build_fd(settings, data, student, teacher)
    plain = build_fd(FeatureSettings(), data, student, teacher)
    batch = Batch(torch.arange(data.num_users), torch.arange(20), torch.arange(5, 25))
    kept = []
    for one in (method, plain):
        optimizer = torch.optim.Adam(one.parameters(), lr=0.02)
        for epoch in range(150):
            one.begin_epoch(student, np.random.default_rng(epoch))
            optimizer.zero_grad()
            torch.autograd.backward(one.distillation_loss(build_step(batch, student)))
            optimizer.step()
        with torch.no_grad():
            users, items = student.final_embeddings()
            own, projected = users @ items.T, one.user_projector(users) @ one.item_projector(items).T
            first, second = (scores[:, :12] - scores[:, 12:24] for scores in (own, projected))
            kept.append(float(((first * second) > 0).float().mean()))
    assert kept[0] > kept[1] + 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"distillation_weight": -0.1},
        {"preference_weight": -0.1},
        {"preference_items": 1},
        {"preference_items": 101},
        {"preference_temperature": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        PreferenceSettings(**wrong)
