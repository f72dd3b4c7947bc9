"""What the response methods share: their settings, and the teacher whose scores they learn.

The filter of FreqD applies to scores too: the scores of h(L) X_t are the teacher's, smoothed over the graph. With
α = 0 they are the teacher's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import bipartite_adjacency, symmetric_normalization
from distill.graph.filters import GraphFilter, linear_coefficients
from distill.methods.base import Teacher, require_not_negative

AnySettings = TypeVar("AnySettings", bound="HasTemperature")
TRAINING_DEFAULTS = {"batch_size": 256, "learning_rate": 5e-3, "weight_decay": 0.0}


class HasTemperature(Protocol):
    """A frozen dataclass with a temperature."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def temperature(self) -> float:
        """τ."""
        ...


@dataclass(frozen=True)
class ResponseSettings:
    """Settings of the losses over the whole catalogue; each changes the result.

    Attributes:
        distillation_weight: Factor of the loss, a sum over the batch's users.
        temperature: τ of teacher and student, in units of the backbone's `score_temperature`.
        base_weight: Factor of the backbone's own loss beside it.
        alpha: α of the filter 1 − αλ on the user–item graph that smooths the teacher first; 0 leaves it as it is.
    """

    distillation_weight: float = 1.0
    temperature: float = 1.0
    base_weight: float = 0.0
    alpha: float = 0.0

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight", "base_weight")
        if self.temperature <= 0:
            raise SettingError(f"temperature: {self.temperature} is not above 0")
        if not 0 <= self.alpha <= 1:
            raise SettingError(f"alpha: {self.alpha} is outside [0, 1]")


def suit_temperature(settings: AnySettings, student: Backbone) -> AnySettings:
    """The settings with τ in units of the student's scores."""
    return replace(settings, temperature=settings.temperature * student.score_temperature)


def smooth_teacher(teacher: Teacher, data: Interactions, alpha: float) -> Teacher:
    """The teacher with features h(L) X_t, h(λ) = 1 − αλ (arXiv 2411.10676), over the user–item graph."""
    if alpha == 0:
        return teacher
    adjacency = symmetric_normalization(bipartite_adjacency(data.train))
    features = GraphFilter(adjacency, linear_coefficients(alpha)).filter_all(np.asarray(teacher.features))
    return Teacher(torch.from_numpy(features), teacher.num_users)
