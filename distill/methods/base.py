"""What a distillation method must offer to the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.losses import FeatureLoss
from distill.projector import ProjectorKind
from distill.sampling import Batch

Variant = Literal["bipartite", "cooccurrence"]
FilterKind = Literal["linear", "quadratic"]
Order = Literal["filter-first", "projector-first"]


@dataclass(frozen=True)
class MethodSettings:
    """Settings of the feature-distillation methods; every one changes the result.

    Attributes:
        distillation_weight: Factor of the distillation loss beside the base loss (both are sums).
        projector: "linear" or "mlp".
        loss: "cosine" or "l2".
        variant: The graph: "bipartite" (user–item) or "cooccurrence" (top-K user–user and item–item).
        filter: "linear" h(λ) = 1 − αλ, or "quadratic" h(λ) = (1 − αλ)².
        alpha: α; None takes the variant's published value, 0.2 or 0.5.
        coefficients: c_0, c_1, … of any polynomial h(λ); overrides `filter` and `alpha`.
        order: Whether student rows are filtered before or after the projector; None takes the variant's.
        num_neighbors: K of the co-occurrence graph.
        keep_prob: Edge dropout's probability of keeping an edge; None takes the variant's, 1 or 0.5.
        reference: Reproduce the traps of the public code's co-occurrence graph.
    """

    distillation_weight: float = 0.5
    projector: ProjectorKind = "linear"
    loss: FeatureLoss = "cosine"
    variant: Variant = "bipartite"
    filter: FilterKind = "linear"
    alpha: float | None = None
    coefficients: tuple[float, ...] | None = None
    order: Order | None = None
    num_neighbors: int = 5
    keep_prob: float | None = None
    reference: bool = False

    def __post_init__(self) -> None:
        if self.distillation_weight < 0:
            raise SettingError(f"distillation_weight: {self.distillation_weight} is negative; give 0 or more")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise SettingError(f"alpha: {self.alpha} is outside [0, 1]")
        if self.keep_prob is not None and not 0 < self.keep_prob <= 1:
            raise SettingError(f"keep_prob: {self.keep_prob} is outside (0, 1]")
        if self.num_neighbors < 1:
            raise SettingError(f"num_neighbors: {self.num_neighbors} is below 1")


@dataclass(frozen=True)
class Teacher:
    """The teacher's final features.

    Attributes:
        features: float32, users first, shape (N, d_t).
    """

    features: torch.Tensor

    @property
    def dim(self) -> int:
        """d_t."""
        return int(self.features.shape[1])


class Method(nn.Module, ABC):
    """A loss added to the backbone's own; its parameters (a projector, say) train along and are discarded."""

    needs_teacher: bool = True

    @classmethod
    @abstractmethod
    def build(cls, settings: MethodSettings, data: Interactions, student: Backbone, teacher: Teacher | None) -> Method:
        """Prepare everything that does not change during training.

        Raises:
            SettingError: The method needs a teacher and there is none.
        """

    @abstractmethod
    def distillation_loss(self, batch: Batch, student: Backbone, generator: torch.Generator) -> torch.Tensor | None:
        """The weighted loss to add for this batch, a scalar, or None where there is nothing to add."""


def require_teacher(teacher: Teacher | None, method: str) -> Teacher:
    """Return the teacher.

    Raises:
        SettingError: There is none.
    """
    if teacher is None:
        raise SettingError(f"teacher: method '{method}' distills from one; give --teacher RUN")
    return teacher
