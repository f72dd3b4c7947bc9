"""Projectors P: student rows of width d_s into the teacher's space of width d_t.

A feature loss needs only two moments of a projected row, ⟨P(a), b⟩ and ‖P(a)‖², and a linear projector has both
without ever forming the d_t-wide P(a): see `linear_feature_loss`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import nn

from distill.methods.experts import Experts
from distill.methods.linear_feature_loss import linear_feature_loss
from distill.methods.losses import FeatureLoss, feature_loss

ProjectorKind = Literal["linear", "mlp", "experts"]


class Projector(nn.Module, ABC):
    """Maps student rows into the teacher's space."""

    is_linear: bool = False
    """Whether P commutes with a graph filter."""

    @abstractmethod
    def forward(self, rows: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t).

        Args:
            rows: a.
            generator: Randomness, for a projector that has dropout; nothing is dropped without one.
        """

    def loss(
        self,
        rows: torch.Tensor,
        targets: torch.Tensor,
        target_norms: torch.Tensor,
        entities: torch.Tensor,
        row_weights: torch.Tensor,
        kind: FeatureLoss,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Σ_i w_i D(P(a_i), b_i) over pairs of rows.

        Args:
            rows: a, shape (B, d_s).
            targets: Teacher rows, shape (N, d_t).
            target_norms: Their squared norms, shape (N,).
            entities: Which of them each row is compared with, int64 of shape (B,).
            row_weights: w, shape (B,).
            kind: "cosine" or "l2".
            generator: Randomness of the projector.

        Returns:
            A scalar.
        """
        moments = row_moments(self(rows, generator), targets[entities].float())
        return row_weights @ feature_loss(*moments, target_norms[entities], kind)


def row_moments(projected: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both moments of rows that are projected already, (B, d_t) each: two tensors of shape (B,)."""
    return (projected * targets).sum(dim=1), projected.square().sum(dim=1)


class LinearProjector(Projector):
    """P(a) = W a, without bias."""

    is_linear = True

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        """Draw W.

        Args:
            student_dim: d_s.
            teacher_dim: d_t.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(teacher_dim, student_dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, rows: torch.Tensor, _: torch.Generator | None = None) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t)."""
        return rows @ self.weight.T

    def loss(
        self,
        rows: torch.Tensor,
        targets: torch.Tensor,
        target_norms: torch.Tensor,
        entities: torch.Tensor,
        row_weights: torch.Tensor,
        kind: FeatureLoss,
        _: torch.Generator | None = None,
    ) -> torch.Tensor:
        """The same at width d_s: see `linear_feature_loss`."""
        return linear_feature_loss(rows, self.weight, targets, target_norms, entities, row_weights, kind)


class MLPProjector(Projector):
    """P(a) = W₂ relu(W₁ a + b₁) + b₂ with a hidden width of d_t, as in the public code's expert."""

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        """Draw the weights.

        Args:
            student_dim: d_s.
            teacher_dim: d_t.
        """
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(student_dim, teacher_dim), nn.ReLU(), nn.Linear(teacher_dim, teacher_dim))

    def forward(self, rows: torch.Tensor, _: torch.Generator | None = None) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t)."""
        projected: torch.Tensor = self.layers(rows)
        return projected


class ExpertsProjector(Projector):
    """The mean of MLPs with a hidden width of d_t and dropout before either layer: the public code's projector."""

    def __init__(self, student_dim: int, teacher_dim: int, num_experts: int, dropout: float) -> None:
        """Draw the weights.

        Args:
            student_dim: d_s.
            teacher_dim: d_t.
            num_experts: How many MLPs.
            dropout: Probability of dropping an input of a layer.
        """
        super().__init__()
        self.experts = Experts((student_dim, teacher_dim, teacher_dim), num_experts, dropout)

    def forward(self, rows: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t)."""
        return self.experts.mean(rows, generator)


PROJECTORS: dict[ProjectorKind, type[Projector]] = {
    "linear": LinearProjector,
    "mlp": MLPProjector,
    "experts": ExpertsProjector,
}


def build_projector(
    kind: ProjectorKind, student_dim: int, teacher_dim: int, num_experts: int = 5, dropout: float = 0.2
) -> Projector:
    """Build a projector by name.

    Args:
        kind: "linear", "mlp" or "experts".
        student_dim: d_s.
        teacher_dim: d_t.
        num_experts: Of "experts" alone.
        dropout: Of "experts" alone.
    """
    if kind == "experts":
        return ExpertsProjector(student_dim, teacher_dim, num_experts, dropout)
    factory = PROJECTORS[kind]
    return factory(student_dim, teacher_dim)


def project_pair(
    user_projector: Projector,
    item_projector: Projector,
    users: torch.Tensor,
    items: torch.Tensor,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose inner products are those of the projected rows, (V a) · (W b).

    Args:
        user_projector: V.
        item_projector: W.
        users: a, shape (B, d_s).
        items: b, shape (M, d_s).
        generator: Randomness of the projectors.

    Returns:
        Shapes (B, d) and (M, d); for linear projectors d = d_s, for then it is (Wᵀ V a) · b.
    """
    if isinstance(user_projector, LinearProjector) and isinstance(item_projector, LinearProjector):
        return users @ (user_projector.weight.T @ item_projector.weight), items
    return user_projector(users, generator), item_projector(items, generator)
