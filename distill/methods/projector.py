"""Projectors from the student's space, d_s wide, into the teacher's, d_t wide: linear, an MLP, and mixtures of experts.

A feature loss needs only two moments of a projected row, ⟨P(a), b⟩ and ‖P(a)‖², and a linear projector has both
without ever forming the d_t-wide P(a): see `linear_feature_loss`.

Experts are several small MLPs, mixed row by row. Their parameters are stacked, so that an optimizer sees four tensors
however many experts there are, and a row passes only through the experts that have a share in it.

Cost of a mixture over E (row, expert) pairs with a share: 6 E h (d_s + d_t) floating-point operations forward and
backward, h the hidden width, and 8 E h bytes kept in between; B K pairs with K experts, B once each row has chosen.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import nn

from distill.methods.features import FeatureLoss, feature_loss, linear_feature_loss

ProjectorKind = Literal["linear", "mlp", "experts"]
NEGLIGIBLE_SHARE = 1e-6
"""Shares below it are left out: what they add is lost in the rounding of the others."""


class Projector(nn.Module, ABC):
    """Maps student rows into the teacher's space."""

    is_linear: bool = False
    """Whether P commutes with a graph filter."""

    @abstractmethod
    def forward(self, rows: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t); `generator` is the randomness of dropout, off without one."""

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
        """Compute Σ_i w_i D(P(a_i), b_i) over pairs of rows.

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


class LinearProjector(Projector):
    """P(a) = W a, without bias."""

    is_linear = True

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        """Draw W by Glorot's uniform distribution."""
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
        """Compute the same at width d_s: see `linear_feature_loss`."""
        return linear_feature_loss(rows, self.weight, targets, target_norms, entities, row_weights, kind)


class MLPProjector(Projector):
    """P(a) = W₂ relu(W₁ a + b₁) + b₂: the projector of the public class FreqD of 2024."""

    def __init__(self, student_dim: int, hidden_dim: int, teacher_dim: int) -> None:
        """Draw the weights as `nn.Linear` does."""
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(student_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, teacher_dim))

    def forward(self, rows: torch.Tensor, _: torch.Generator | None = None) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t)."""
        projected: torch.Tensor = self.layers(rows)
        return projected


class ExpertsProjector(Projector):
    """The mean of MLPs with dropout before either layer: the projector of the public class FreqD of 2025."""

    def __init__(self, dims: tuple[int, int, int], num_experts: int, dropout: float) -> None:
        """Draw the weights of experts d_s → h → d_t; `dropout` is the probability of dropping an input of a layer."""
        super().__init__()
        self.experts = Experts(dims, num_experts, dropout)

    def forward(self, rows: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Project rows of shape (B, d_s) to (B, d_t)."""
        return self.experts.mean(rows, generator)


def published_hidden_dim(kind: ProjectorKind, teacher_dim: int) -> int:
    """Return the hidden width in the public code: d_t / 2 of "mlp" (2024-10), d_t of "experts" (2025-04)."""
    return -(-teacher_dim // 2) if kind == "mlp" else teacher_dim


def build_projector(
    kind: ProjectorKind,
    student_dim: int,
    teacher_dim: int,
    hidden_dim: int | None = None,
    num_experts: int = 5,
    dropout: float = 0.2,
) -> Projector:
    """Build a projector by name.

    Args:
        kind: "linear", "mlp" or "experts".
        student_dim: d_s.
        teacher_dim: d_t.
        hidden_dim: Hidden width of "mlp" and of an expert; None takes the public code's.
        num_experts: Of "experts".
        dropout: Of "experts": the probability of dropping an input of a layer.
    """
    hidden_dim = hidden_dim or published_hidden_dim(kind, teacher_dim)
    if kind == "experts":
        return ExpertsProjector((student_dim, hidden_dim, teacher_dim), num_experts, dropout)
    if kind == "mlp":
        return MLPProjector(student_dim, hidden_dim, teacher_dim)
    return LinearProjector(student_dim, teacher_dim)


def project_pair(
    user_projector: Projector,
    item_projector: Projector,
    users: torch.Tensor,
    items: torch.Tensor,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make rows whose inner products are those of the projected rows, (V a) · (W b).

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


def row_moments(projected: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute ⟨p, b⟩ and ‖p‖², (B,) each, of projected and teacher rows, (B, d_t) each."""
    return (projected * targets).sum(dim=1), projected.square().sum(dim=1)


class Experts(nn.Module):
    """E_k(a) = W₂ relu(W₁ a + b₁) + b₂ for k = 1 … K, every expert with weights of its own."""

    def __init__(self, dims: tuple[int, int, int], num_experts: int, dropout: float = 0.0) -> None:
        """Draw the weights as `nn.Linear` does.

        Args:
            dims: d_s, the hidden width h, d_t.
            num_experts: K.
            dropout: Probability of dropping an input of either layer, where a generator is given.
        """
        super().__init__()
        student_dim, hidden_dim, teacher_dim = dims
        self.dropout = dropout
        self.hidden_weight = _uniform((num_experts, student_dim, hidden_dim), student_dim)
        self.hidden_bias = _uniform((num_experts, hidden_dim), student_dim)
        self.output_weight = _uniform((num_experts, hidden_dim, teacher_dim), hidden_dim)
        self.output_bias = _uniform((num_experts, teacher_dim), hidden_dim)

    def mean(self, rows: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Average all experts.

        Args:
            rows: a, shape (B, d_s).
            generator: Randomness of the dropout; nothing is dropped without one.

        Returns:
            Shape (B, d_t).
        """
        hidden = []
        for weight, bias in zip(self.hidden_weight.unbind(), self.hidden_bias.unbind(), strict=True):
            kept = _drop(rows, self.dropout, generator)
            hidden.append(_drop(torch.relu(torch.addmm(bias, kept, weight)), self.dropout, generator))
        total = torch.cat(hidden, dim=1) @ self.output_weight.flatten(0, 1)
        return total / len(self.output_bias) + self.output_bias.mean(dim=0)

    def forward(self, rows: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Compute Σ_k z_k E_k(a), without dropout.

        Args:
            rows: a, shape (B, d_s).
            shares: z, shape (B, K).

        Returns:
            Shape (B, d_t).
        """
        mixed = shares @ self.output_bias
        layers = (self.hidden_weight, self.hidden_bias, self.output_weight, shares.T)
        for weight, bias, output, share in zip(*(layer.unbind() for layer in layers), strict=True):
            chosen = (share > NEGLIGIBLE_SHARE).nonzero().ravel()
            hidden = torch.relu(torch.addmm(bias, rows[chosen], weight))
            mixed.index_add_(0, chosen, (share[chosen, None] * hidden) @ output)
        return mixed


class GatedExperts(nn.Module):
    """Experts that a gate mixes by the teacher's row t: a Gumbel-softmax (Jang et al., ICLR 2017).

    z = softmax((ln α + g) / T), where α = softmax(V t + c) and g is standard Gumbel noise: the lower T, the nearer to
    a choice of one expert, drawn with the probabilities α.
    """

    def __init__(self, student_dim: int, teacher_dim: int, num_experts: int) -> None:
        """Draw the weights of K experts, each (d_s + d_t) / 2 wide inside, and of the gate."""
        super().__init__()
        self.experts = Experts((student_dim, (student_dim + teacher_dim) // 2, teacher_dim), num_experts)
        self.gate = nn.Linear(teacher_dim, num_experts)

    def forward(
        self, rows: torch.Tensor, targets: torch.Tensor, temperature: float, generator: torch.Generator
    ) -> torch.Tensor:
        """Mix the experts for each row.

        Args:
            rows: a, shape (B, d_s).
            targets: t, the teacher's rows of the same entities, shape (B, d_t).
            temperature: T.
            generator: Randomness of g.

        Returns:
            Shape (B, d_t).
        """
        logits = torch.log_softmax(self.gate(targets), dim=1)
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()
        mixed: torch.Tensor = self.experts(rows, torch.softmax((logits + noise) / temperature, dim=1))
        return mixed

    def choose(self, targets: torch.Tensor) -> torch.Tensor:
        """Choose the expert with the largest α, without noise: int64 of shape (B,)."""
        with torch.no_grad():
            chosen: torch.Tensor = self.gate(targets).argmax(dim=1)
        return chosen


def _uniform(shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    bound = 1.0 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def _drop(values: torch.Tensor, probability: float, generator: torch.Generator | None) -> torch.Tensor:
    if generator is None or probability == 0.0:
        return values
    kept = torch.empty_like(values).bernoulli_(1.0 - probability, generator=generator)
    return values * kept / (1.0 - probability)
