"""Softmax losses over the whole catalogue, forward and backward in one pass over blocks of scores.

For a user with score row s and a target distribution q over items, the loss is the divergence of softmax(s / τ) from
q, Σ_j q_j (ln q_j − ln softmax(s / τ)_j): the cross-entropy less the entropy of q, so that 0 is perfect. Its
gradient with respect to s is (softmax(s / τ) − q) / τ. Both are taken while the block is in the cache, so no score
outlives its block: memory is `BLOCK_BYTES`, whatever the batch and the catalogue.

Cost of a step with B users: 6 B |I| d_s floating-point operations (scores, and the gradients of users and items)
and B |I| exponentials; the optimizer apart, nothing else grows with the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

BLOCK_BYTES = 8 * 2**20
"""A block of scores that a core's share of a usual last-level cache holds."""


class TopTarget:
    """A target distribution on K items a user: what a teacher would recommend."""

    def __init__(self, items: torch.Tensor, probabilities: torch.Tensor) -> None:
        """Hold the distribution.

        Args:
            items: Item rows, int64 of shape (B, K).
            probabilities: q, rows sum to 1, shape (B, K).
        """
        self.items = items
        self.probabilities = probabilities

    def mean_score(self, rows: slice, scores: torch.Tensor) -> torch.Tensor:
        """Σ q (s − ln q) over a block: a scalar."""
        probabilities = self.probabilities[rows]
        entropy: torch.Tensor = torch.special.entr(probabilities).sum()
        expected: torch.Tensor = (scores.gather(1, self.items[rows]) * probabilities).sum()
        return expected + entropy

    def subtract_from(self, rows: slice, probabilities: torch.Tensor) -> None:
        """Subtract q from a block of probabilities in place."""
        probabilities.scatter_add_(1, self.items[rows], -self.probabilities[rows])


class TeacherTarget:
    """The softmax of a teacher's scores over the whole catalogue, formed a block at a time."""

    def __init__(self, users: torch.Tensor, items: torch.Tensor, temperature: float) -> None:
        """Hold the teacher's embeddings.

        Args:
            users: Of the batch, shape (B, d_t).
            items: Shape (|I|, d_t).
            temperature: τ.
        """
        self._users = users / temperature
        self._items = items
        self._block = users.new_empty(0)

    def mean_score(self, rows: slice, scores: torch.Tensor) -> torch.Tensor:
        """Σ q (s − ln q) over a block: a scalar."""
        logits = self._users[rows] @ self._items.T
        normalizer = logits.logsumexp(dim=1, keepdim=True)
        self._block = torch.exp(logits - normalizer)
        entropy = (normalizer.squeeze(1) - (self._block * logits).sum(dim=1)).sum()
        return (self._block * scores).sum() + entropy

    def subtract_from(self, rows: slice, probabilities: torch.Tensor) -> None:
        """Subtract q from a block of probabilities in place."""
        probabilities.sub_(self._block)


def catalogue_divergence(
    embeddings: torch.Tensor,
    users: torch.Tensor,
    num_users: int,
    target: TopTarget | TeacherTarget,
    temperature: float,
) -> torch.Tensor:
    """Σ_u KL(q_u ‖ softmax(s_u / τ)), summed over the batch (Hinton et al., 2015, eq. 1, over a catalogue).

    Args:
        embeddings: Users first, shape (N, d); differentiable.
        users: User rows of the batch, each once, int64 of shape (B,).
        num_users: |U|.
        target: q.
        temperature: τ, of the student's scores.

    Returns:
        A scalar.
    """
    apply: Callable[..., torch.Tensor] = _CatalogueDivergence.apply
    return apply(embeddings, users, num_users, target, temperature)


class _CatalogueDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embeddings: torch.Tensor,
        users: torch.Tensor,
        num_users: int,
        target: TopTarget | TeacherTarget,
        temperature: float,
    ) -> torch.Tensor:
        items = embeddings[num_users:]
        own = embeddings[users] / temperature
        gradient = torch.zeros_like(embeddings)
        block = max(1, BLOCK_BYTES // (4 * len(items)))
        loss = embeddings.new_zeros(())
        for start in range(0, len(users), block):
            rows = slice(start, start + block)
            scores = own[rows] @ items.T
            loss += scores.logsumexp(dim=1).sum() - target.mean_score(rows, scores)
            residual = torch.softmax(scores, dim=1)
            target.subtract_from(rows, residual)
            gradient[users[rows]] = residual @ items / temperature
            gradient[num_users:].addmm_(residual.T, own[rows])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None, None
