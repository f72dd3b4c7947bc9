"""Spectral weights: feature distillation with an explicit weight for each group of frequencies, on a small graph.

    total = base + β · Σ_k w_k ‖u_kᵀ (X_t − P(X_s))‖²

with u_k and λ_k the exact eigenvectors and frequencies of L: the weighting that FreqD reaches with a polynomial filter,
w_k = h(λ_k)², without an eigenvector (arXiv 2411.10676, Theorem 1 and what follows from it). Equal weights are plain
feature distillation. Groups are equally wide intervals of [0, 2], and all frequencies of a group weigh alike.

Cost of a step: for analysis alone. Every step counts all N entities, whatever its batch, so β means something else than
in a method on batch rows. With a linear projector 4 N² d_s operations rotate the student's rows into the eigenbasis and
their gradient back, 12 N d_s d_t project them; with another projector, which does not commute with the rotation, it is
4 N² d_t. The basis is 4 N² bytes, read twice a step, and takes O(N³) once: N is bounded by
`distill.graph.spectrum.MAX_ENTITIES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import Graph, build_graph
from distill.graph.filters import linear_coefficients, response
from distill.graph.spectrum import (
    MAX_FREQUENCY,
    SAME_FREQUENCY,
    Spectrum,
    Values,
    equal_width_edges,
    exact_spectrum,
)
from distill.methods.base import Method, Step, Teacher, require_not_negative, require_teacher
from distill.methods.projector import ProjectorKind, build_projector

Allocation = Literal["uniform", "low", "high", "freqd"]


@dataclass(frozen=True)
class SpectralSettings:
    """Settings of the explicit weights; each changes the result.

    Attributes:
        distillation_weight: β (the loss is a sum over all entities).
        allocation: "uniform" w = 1; "low" w = 2 − λ and "high" w = λ at the middle of each group; "freqd"
            w = (1 − αλ)² at each frequency itself.
        alpha: α of "freqd".
        num_groups: Groups of "low" and "high"; an odd number keeps the many frequencies of 1 inside one.
        group_weights: One weight a group, low frequencies first; sets the number of groups and overrides `allocation`.
        variant: The graph: "bipartite" or "cooccurrence".
        num_neighbors: K of the co-occurrence graph.
        projector: "linear", "mlp" or "experts" (five).
    """

    distillation_weight: float = 0.5
    allocation: Allocation = "freqd"
    alpha: float = 0.2
    num_groups: int = 21
    group_weights: tuple[float, ...] | None = None
    variant: Graph = "bipartite"
    num_neighbors: int = 5
    projector: ProjectorKind = "linear"

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight")
        if not 0 <= self.alpha <= 1:
            raise SettingError(f"alpha: {self.alpha} is outside [0, 1]")
        for name in ("num_groups", "num_neighbors"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name}: {getattr(self, name)} is below 1")
        weights = self.group_weights
        if weights is not None and (not weights or min(weights) < 0 or max(weights) == 0):
            raise SettingError(f"group_weights: {weights} must be 0 or more each, one of them above 0")


class SpectralWeights(Method):
    """Weighs what a student learns by frequency, exactly."""

    Settings = SpectralSettings

    def __init__(self, settings: SpectralSettings, student: Backbone, teacher: Teacher, spectrum: Spectrum) -> None:
        """Rotate the teacher into the eigenbasis of the graph over all N entities."""
        super().__init__()
        self.settings = settings
        self.num_users = teacher.num_users
        self.user_projector = build_projector(settings.projector, student.dim, teacher.dim)
        self.item_projector = build_projector(settings.projector, student.dim, teacher.dim)
        basis = torch.from_numpy(spectrum.eigenvectors).float()
        weights = torch.from_numpy(frequency_weights(settings, spectrum.frequencies)).float()
        self._basis: torch.Tensor
        self._weights: torch.Tensor
        self._rotated_targets: torch.Tensor
        self.register_buffer("_basis", basis, persistent=False)
        self.register_buffer("_weights", weights, persistent=False)
        self.register_buffer("_rotated_targets", basis.T @ teacher.features, persistent=False)

    @classmethod
    def build(
        cls, settings: SpectralSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> SpectralWeights:
        """Compute the eigenbasis of the training graph.

        Raises:
            SettingError: There is no teacher, or the graph is too large.
        """
        teacher = require_teacher(teacher, "spectral")
        adjacency = build_graph(data, settings.variant, settings.num_neighbors)
        return cls(settings, student, teacher, exact_spectrum(adjacency))

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over all frequencies: a scalar."""
        residual = self._rotated_targets - self._rotated_student(step)
        return self.settings.distillation_weight * (self._weights @ residual.square().sum(dim=1))

    def _rotated_student(self, step: Step) -> torch.Tensor:
        """Uᵀ P(X_s), shape (N, d_t)."""
        users, items = step.features[: self.num_users], step.features[self.num_users :]
        if self.user_projector.is_linear:
            rotated = [self._basis[: self.num_users].T @ users, self._basis[self.num_users :].T @ items]
            return torch.add(self.user_projector(rotated[0]), self.item_projector(rotated[1]))
        projected = [self.user_projector(users, step.generator), self.item_projector(items, step.generator)]
        return self._basis.T @ torch.cat(projected)


def frequency_weights(settings: SpectralSettings, frequencies: Values) -> Values:
    """Compute w_k for each frequency λ_k, shape (N,)."""
    if settings.group_weights is not None:
        return _spread(np.array(settings.group_weights), frequencies)
    if settings.allocation == "uniform":
        return np.ones_like(frequencies)
    if settings.allocation == "freqd":
        squared: Values = np.square(response(linear_coefficients(settings.alpha), frequencies))
        return squared
    edges = equal_width_edges(settings.num_groups)
    middles = _spread((edges[:-1] + edges[1:]) / 2, frequencies)
    return middles if settings.allocation == "high" else MAX_FREQUENCY - middles


def _spread(by_group: Values, frequencies: Values) -> Values:
    """Give each frequency its group's value; one on a boundary belongs to the upper group, as in an analysis."""
    boundaries = equal_width_edges(len(by_group))[1:-1] - SAME_FREQUENCY
    spread: Values = by_group[np.searchsorted(boundaries, frequencies, side="right")]
    return spread
