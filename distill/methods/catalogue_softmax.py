"""Softmax losses over the whole catalogue, forward and backward in one pass over blocks of scores.

For a user with score row s and a target distribution q over items, the loss is the divergence of softmax(s / τ) from
q, Σ_j q_j (ln q_j − ln softmax(s / τ)_j): the cross-entropy less the entropy of q, so that 0 is perfect. Its
gradient with respect to s is (softmax(s / τ) − q) / τ. Both are taken while the block is in the cache, so no score
outlives its block, whatever the batch.

Cost of a step with B users: 6 B |I| d_s floating-point operations (scores, and the gradients of users and items)
and B |I| exponentials; the optimizer apart, nothing else grows with the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

BLOCK_USERS = 32
"""Few enough that a block of scores stays in the cache; from 64 rows the thin products are several times slower."""
BLOCK_BYTES = 64 * 2**20
"""Bound on a block of scores where the catalogue is very large."""


HIDDEN_SCORE = -1e9
"""Of items left out: its exponential is 0, and unlike −∞ it may be multiplied by 0."""


class ItemSets:
    """A set of items for each user of a batch."""

    def __init__(self, indptr: torch.Tensor, items: torch.Tensor, users: torch.Tensor) -> None:
        """Take the users' sets out of a CSR.

        Args:
            indptr: int64 of shape (|U| + 1,).
            items: Item rows, int64 of shape (nnz,).
            users: The batch's users, int64 of shape (B,).
        """
        lengths = indptr[users + 1] - indptr[users]
        self._bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        self._owners = torch.repeat_interleave(torch.arange(len(users), device=users.device), lengths)
        places = torch.arange(len(self._owners), device=users.device)
        self._items = items[places + (indptr[users] - self._bounds[:-1])[self._owners]]

    def hide(self, rows: slice, scores: torch.Tensor) -> None:
        """Write `HIDDEN_SCORE` over a block's items in place."""
        last = min(rows.stop, len(self._bounds) - 1)
        part = slice(int(self._bounds[rows.start]), int(self._bounds[last]))
        scores[self._owners[part] - rows.start, self._items[part]] = HIDDEN_SCORE


class TopTarget:
    """A target distribution on K items a user: what a teacher would recommend."""

    def __init__(self, items: torch.Tensor, probabilities: torch.Tensor, hidden: ItemSets | None = None) -> None:
        """Hold the distribution.

        Args:
            items: Item rows, int64 of shape (B, K).
            probabilities: q, rows sum to 1, shape (B, K).
            hidden: Items that are left out of the student's softmax too; q must be 0 there.
        """
        self.items = items
        self.probabilities = probabilities
        self.hidden = hidden

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

    hidden = None

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
        columns = items.T.contiguous()
        own = embeddings[users] / temperature
        gradient = torch.zeros_like(embeddings)
        loss = embeddings.new_zeros(())
        block = max(1, min(BLOCK_USERS, BLOCK_BYTES // (4 * len(items))))
        for start in range(0, len(users), block):
            rows = slice(start, start + block)
            scores = own[rows] @ columns
            if target.hidden is not None:
                target.hidden.hide(rows, scores)
            residual = torch.softmax(scores, dim=1)
            # ln Σ exp s, from the largest score and its probability, which cannot vanish.
            normalizer = scores.amax(dim=1) - residual.amax(dim=1).log()
            loss += normalizer.sum() - target.mean_score(rows, scores)
            target.subtract_from(rows, residual)
            gradient[users[rows]] = (columns @ residual.T).T / temperature
            gradient[num_users:].addmm_(residual.T, own[rows])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None, None
