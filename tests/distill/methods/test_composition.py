from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tests.distill.methods
from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch
from distill.errors import SettingError
from distill.methods import METHODS, Method, Teacher
from distill.methods.composition import (
    Composition,
    build_method,
    build_method_settings,
    describe_method_settings,
    method_defaults,
    parse_method,
)
from distill.methods.cross_entropy import CrossEntropy, CrossEntropySettings
from distill.methods.fd import FeatureDistillation
from distill.methods.freqd import FreqDSettings
from distill.methods.rcekd import RCEKDSettings, RejuvenatedCrossEntropy
from tests.distill.toy import build_random, build_step, whole_batch
from tests.kits.method_kit import MethodKit
from tests.kits.registry import subclasses_in


def test_every_registered_method_passes_the_kit() -> None:
    tested = {vars(kit)["name"] for kit in subclasses_in(tests.distill.methods, MethodKit) if "name" in vars(kit)}
    assert tested == {name for name, method in METHODS.items() if method.needs_teacher}


@pytest.mark.parametrize("name", ["freqd+ce", "fd+kl"])
def test_a_composition_is_the_sum_of_its_parts(rng: np.random.Generator, name: str) -> None:
    data = build_random(rng)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    step = build_step(whole_batch(data), student)

    def loss(method: str) -> float:
        torch.manual_seed(0)
        found = build_method(method, build_method_settings(method, {}), data, student, teacher).distillation_loss(step)
        assert found is not None
        return found.item()

    assert loss(name) == pytest.approx(sum(loss(part) for part in name.split("+")), rel=1e-6)


def test_in_an_epoch_by_users_a_feature_loss_sees_all_their_items(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = build_random(rng)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    seen: dict[type[Method], Batch] = {}
    for part in (FeatureDistillation, CrossEntropy, RejuvenatedCrossEntropy):
        monkeypatch.setattr(part, "distillation_loss", lambda self, step: seen.update({type(self): step.batch}))
    batch = Batch(torch.tensor([4, 7]), torch.tensor([0, 1]), torch.tensor([2, 3]))
    step = build_step(batch, student)
    settings = build_method_settings("fd+ce+rcekd", {"whole_histories": True})
    build_method("fd+ce+rcekd", settings, data, student, teacher).distillation_loss(step)
    assert seen[CrossEntropy] is seen[RejuvenatedCrossEntropy] is batch
    own = seen[FeatureDistillation]
    pairs = list(zip(own.users.tolist(), own.positives.tolist(), strict=True))
    assert pairs == [(user, item) for user in (4, 7) for item in data.train[[user]].indices.tolist()]
    assert own.negatives.shape == own.positives.shape

    for name, given in (("fd+rcekd", {"whole_histories": True}), ("fd+ce", {})):
        build_method(name, build_method_settings(name, given), data, student, teacher).distillation_loss(step)
        assert seen[FeatureDistillation] is batch


def test_a_composition_goes_by_users_if_a_part_does_and_takes_the_smallest_base_weight(
    rng: np.random.Generator,
) -> None:
    data = build_random(rng)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    method = build_method("freqd+ce", build_method_settings("freqd+ce", {}), data, student, teacher)
    assert isinstance(method, Composition)
    assert (method.batches, method.base_weight) == ("users", 0.0)
    settings = build_method_settings("freqd+ce", {"base_weight": "0.5"})
    assert build_method("freqd+ce", settings, data, student, teacher).base_weight == 0.5
    assert method_defaults("freqd+ce")["batch_size"] == 256
    assert method_defaults("freqd") == {}


def test_settings_go_to_the_part_that_is_named_or_to_all_that_have_them() -> None:
    given = {"freqd.alpha": "0.3", "distillation_weight": "2", "ce.num_top": 7, "coefficients": "1,-0.5"}
    freqd, ce = build_method_settings("freqd+ce", given)
    assert freqd == FreqDSettings(alpha=0.3, distillation_weight=2.0, coefficients=(1.0, -0.5))
    assert ce == CrossEntropySettings(distillation_weight=2.0, num_top=7)
    described = describe_method_settings("freqd+ce", (freqd, ce))
    assert (described["freqd"]["alpha"], described["ce"]["num_top"]) == (0.3, 7)
    assert describe_method_settings("ce", (ce,))["num_top"] == 7


@pytest.mark.parametrize("name", ["ce+rcekd", "rcekd+ce"])
@pytest.mark.parametrize(
    ("given", "weight"),
    [({}, 1.0), ({"distillation_weight": 2}, 2.0), ({"distillation_weight": 2, "rcekd.distillation_weight": 3}, 3.0)],
)
def test_a_composition_has_defaults_of_its_own_which_what_is_given_overrides(
    name: str, given: dict[str, Any], weight: float
) -> None:
    settings = dict(zip(name.split("+"), build_method_settings(name, given), strict=True))
    assert settings["rcekd"] == RCEKDSettings(distillation_weight=weight, hide_train=True)
    assert settings["ce"] == CrossEntropySettings(distillation_weight=given.get("distillation_weight", 1.0))
    assert build_method_settings("rcekd", {}) == (RCEKDSettings(),)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("nothing", {}, "'nothing' is not one of"),
        ("freqd+nothing", {}, "'nothing' is not one of"),
        ("freqd+freqd", {}, "cannot be composed"),
        ("scratch+ce", {}, "cannot be composed"),
        ("ce", {"alfa": 1}, "alfa: 'ce' has no such setting; it has .*alpha"),
        ("freqd+ce", {"alfa": 1}, "alfa: 'freqd\\+ce' has no such setting"),
        ("freqd+ce", {"ce.projector": "mlp"}, "projector: 'ce' has no such setting"),
        ("scratch", {"alpha": 1}, "it has none"),
        ("freqd", {"projector": "cubic"}, "projector: 'cubic' does not fit 'freqd'"),
        ("ce", {"num_top": "many"}, "num_top: 'many' does not fit 'ce'"),
        ("ce", {"temperature": 0}, "temperature: 0"),
    ],
)
def test_wrong_names_and_settings_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build_method_settings(name, given)
    if not given:
        with pytest.raises(SettingError, match=message):
            parse_method(name)
