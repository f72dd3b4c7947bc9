"""Methods by name, alone or composed: "freqd+ce" adds both losses in one run.

The parts carry different knowledge: a feature loss says where an entity lies in the teacher's space, a response
loss what the teacher would recommend. A composition goes through an epoch by users if any part does, and its base
loss has the smallest factor of its parts'.

In an epoch by users `freqd` and `fd` compare the pair that each user brings, or, with `whole_histories`, all their
interactions with a uniform item each: every item about as often as alone. A user comes once an epoch either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from distill.backbones.base import Backbone
from distill.backbones.sampling import interactions_of
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods import METHODS
from distill.methods.base import Method, Step, Teacher
from distill.methods.cross_entropy import CrossEntropy
from distill.methods.freqd import FreqD
from distill.methods.rcekd import RejuvenatedCrossEntropy
from distill.settings import build_settings, describe_settings

Settings = tuple[Any, ...]
"""One settings object a part."""

COMPOSITION_DEFAULTS: Mapping[frozenset[str], Mapping[str, Mapping[str, Any]]] = {
    frozenset({"ce", "rcekd"}): {"rcekd": {"distillation_weight": 1.0, "hide_train": True}},
}
"""Parts → part → defaults other than its own: alone it weighs against the backbone's loss, here against a response that
leaves the training items out."""


class Composition(Method):
    """The sum of several methods' losses."""

    def __init__(self, parts: Sequence[Method], train: sp.csr_matrix) -> None:
        """Hold two or more methods, built for the same student; `train` is CSR of shape (|U|, |I|)."""
        super().__init__()
        self._train = train
        self.parts = nn.ModuleList(parts)
        self.base_weight = min(part.base_weight for part in parts)
        self.batches = "users" if any(part.batches == "users" for part in parts) else "interactions"

    @classmethod
    def build(cls, settings: Any, data: Interactions, student: Backbone, teacher: Teacher | None) -> Composition:
        """Build every part; `settings` are pairs of a method class and its settings."""
        parts = [method.build(own, data, student, teacher) for method, own in settings]
        _share_ranking(parts)
        return cls(parts, data.train)

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Let each part draw in turn."""
        for part in self._methods():
            part.begin_epoch(student, rng)

    def distillation_loss(self, step: Step) -> torch.Tensor | None:
        """Sum the parts' weighted losses: a scalar."""
        losses = []
        for part in self._methods():
            takes_all = self.batches == "users" and isinstance(part, FreqD) and part.settings.whole_histories
            loss = part.distillation_loss(self._with_histories(step) if takes_all else step)
            if loss is not None:
                losses.append(loss)
        return torch.stack(losses).sum() if losses else None

    def _with_histories(self, step: Step) -> Step:
        return replace(step, batch=interactions_of(self._train, torch.unique(step.batch.users), step.generator))

    def _methods(self) -> list[Method]:
        return [part for part in self.parts if isinstance(part, Method)]


def _share_ranking(parts: Sequence[Method]) -> None:
    """Let `ce`, where it samples, have what `rcekd` lets the student rank."""
    for closed in (part for part in parts if isinstance(part, RejuvenatedCrossEntropy)):
        for part in parts:
            if isinstance(part, CrossEntropy):
                part.share_ranking(closed.ranking, closed.hidden)


def parse_method(name: str) -> tuple[type[Method], ...]:
    """Return the method classes that a name such as "freqd" or "freqd+ce" stands for.

    Raises:
        SettingError: A part is unknown or given twice, or a bare student is composed with something.
    """
    parts = name.split("+")
    for part in parts:
        if part not in METHODS:
            raise SettingError(
                f"method: '{part}' is not one of {', '.join(METHODS)}, nor a composition such as freqd+ce"
            )
    if len(set(parts)) < len(parts) or (len(parts) > 1 and "scratch" in parts):
        raise SettingError(f"method: '{name}' cannot be composed; give different methods that have a teacher")
    return tuple(METHODS[part] for part in parts)


def learns_lists(name: str) -> bool:
    """Say whether a method, or a part of a composition, learns from a teacher's lists.

    Raises:
        SettingError: As `parse_method`.
    """
    return any(method.learns_lists for method in parse_method(name))


def build_method_settings(name: str, given: Mapping[str, Any]) -> Settings:
    """Build the settings of each part.

    Args:
        name: A method or a composition.
        given: Setting → value, which may be text. In a composition a setting that several parts have is given as
            "part.setting"; the bare name goes to every part that has it. What is not given has the part's default,
            or that of `COMPOSITION_DEFAULTS`.

    Raises:
        SettingError: No part has a setting, or a value does not fit.
    """
    classes = parse_method(name)
    parts = name.split("+")
    taken: set[str] = set()
    built = []
    for part, method in zip(parts, classes, strict=True):
        known = describe_settings(method.Settings)
        own = dict(COMPOSITION_DEFAULTS.get(frozenset(parts), {}).get(part, {}))
        own |= {key: value for key, value in given.items() if key in known}
        own |= {key.removeprefix(f"{part}."): value for key, value in given.items() if key.startswith(f"{part}.")}
        taken |= {key for key in given if key in known or key.startswith(f"{part}.")}
        built.append(build_settings(method.Settings, own, part))
    unknown = [key for key in given if key not in taken]
    if unknown:
        names = sorted({name for method in classes for name in describe_settings(method.Settings)})
        raise SettingError(f"{unknown[0]}: '{name}' has no such setting; it has {', '.join(names) or 'none'}")
    return tuple(built)


def describe_method_settings(name: str, settings: Settings) -> dict[str, Any]:
    """Return JSON-ready settings: flat for one method, by part for a composition."""
    parts = name.split("+")
    if len(parts) == 1:
        return asdict(settings[0])
    return {part: asdict(own) for part, own in zip(parts, settings, strict=True)}


def method_defaults(name: str) -> dict[str, float]:
    """Return the training options that suit a method; those of a part that goes by users win."""
    defaults: dict[str, float] = {}
    for method in sorted(parse_method(name), key=lambda method: method.batches == "users"):
        defaults.update(method.training_defaults)
    return defaults


def build_method(
    name: str, settings: Settings, data: Interactions, student: Backbone, teacher: Teacher | None
) -> Method:
    """Build a method or a composition.

    Raises:
        SettingError: It needs a teacher and there is none.
    """
    pairs = list(zip(parse_method(name), settings, strict=True))
    if len(pairs) == 1:
        return pairs[0][0].build(settings[0], data, student, teacher)
    return Composition.build(pairs, data, student, teacher)
