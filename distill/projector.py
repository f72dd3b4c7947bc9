"""Projectors P: student rows of width d_s into the teacher's space of width d_t.

A feature loss needs only two moments of a projected row, ⟨P(a), b⟩ and ‖P(a)‖², and a linear projector has both
without ever forming the d_t-wide P(a): see `linear_feature_loss`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import nn

from distill.linear_feature_loss import linear_feature_loss
from distill.losses import FeatureLoss, feature_loss

ProjectorKind = Literal["linear", "mlp"]


class Projector(nn.Module, ABC):
    """Maps student rows into the teacher's space."""

    is_linear: bool = False
    """Whether P commutes with a graph filter."""

    @abstractmethod
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t)."""

    def loss(
        self,
        rows: torch.Tensor,
        targets: torch.Tensor,
        target_norms: torch.Tensor,
        entities: torch.Tensor,
        row_weights: torch.Tensor,
        kind: FeatureLoss,
    ) -> torch.Tensor:
        """Σ_i w_i D(P(a_i), b_i) over pairs of rows.

        Args:
            rows: a, shape (B, d_s).
            targets: Teacher rows, shape (N, d_t).
            target_norms: Their squared norms, shape (N,).
            entities: Which of them each row is compared with, int64 of shape (B,).
            row_weights: w, shape (B,).
            kind: "cosine" or "l2".

        Returns:
            A scalar.
        """
        moments = row_moments(self(rows), targets[entities].float())
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

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
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

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t)."""
        projected: torch.Tensor = self.layers(rows)
        return projected


PROJECTORS: dict[str, type[Projector]] = {"linear": LinearProjector, "mlp": MLPProjector}


def build_projector(kind: ProjectorKind, student_dim: int, teacher_dim: int) -> Projector:
    """Build a projector by name.

    Args:
        kind: "linear" or "mlp".
        student_dim: d_s.
        teacher_dim: d_t.
    """
    factory = PROJECTORS[kind]
    return factory(student_dim, teacher_dim)
