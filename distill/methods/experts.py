"""Experts: several small MLPs from the student's space into the teacher's, mixed row by row.

Their parameters are stacked, so that an optimizer sees four tensors however many experts there are, and a row passes
only through the experts that have a share in it.

Cost of a mixture over E (row, expert) pairs with a share: 6 E h (d_s + d_t) floating-point operations forward and
backward, h the hidden width, and 8 E h bytes kept in between; B K pairs with K experts, B once each row has chosen.
"""

from __future__ import annotations

import math

import torch
from torch import nn

NEGLIGIBLE_SHARE = 1e-6
"""Shares below it are left out: what they add is lost in the rounding of the others."""


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
        """The mean of all experts.

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
        """Σ_k z_k E_k(a), without dropout.

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


class SelectedExperts(nn.Module):
    """Experts among which a gate selects by the teacher's row t, softly: a Gumbel-softmax (Jang et al., ICLR 2017).

    z = softmax((ln α + g) / T), where α = softmax(V t + c) and g is standard Gumbel noise: the lower T, the nearer to
    a choice of one expert, drawn with the probabilities α.
    """

    def __init__(self, student_dim: int, teacher_dim: int, num_experts: int) -> None:
        """Draw the weights; experts are (d_s + d_t) / 2 wide inside.

        Args:
            student_dim: d_s.
            teacher_dim: d_t.
            num_experts: K.
        """
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
        """The expert with the largest α, without noise: int64 of shape (B,)."""
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
