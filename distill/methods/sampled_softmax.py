"""A softmax over a catalogue that is not scored whole: some items a user exactly, and a shared sample for the rest.

For a user u with exact items X_u (the teacher's first ones, and what the student itself puts first) the normaliser

    Z_u = Σ_{j ∈ X_u} e^{s_uj} + Σ_{j ∉ X_u} e^{s_uj}

has its second sum estimated by Σ_{j ∈ S − X_u} e^{s_uj} / π_j over a sample S that all users of a batch share, π_j the
probability that S holds j: unbiased, since every j ∉ X_u is in S with probability π_j. Items that are hidden from u are
in neither. As S grows to the catalogue, π becomes 1 and the loss the whole one.

S is drawn without replacement, by systematic sampling in an order that is drawn anew each epoch: |S| points at
distance 1 over the running sum of π, which hit item j with probability π_j. Half of π is even, half follows popularity.

Cost of a step with B users and E exact items each: 6 B (|S| + E) d operations, B (|S| + E) exponentials, and
4 B E (d + 2) bytes of gradient; nothing grows with the catalogue.

References:
    Bengio and Senécal, "Adaptive importance sampling to accelerate training of a neural probabilistic language model",
    IEEE Transactions on Neural Networks, 2008: the estimate of the normaliser.
    Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019: −ln π
    (logQ) on a sample that the batch shares.
    Madow, "On the theory of systematic sampling, II", Annals of Mathematical Statistics, 1949.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distill.methods.responses import HIDDEN_SCORE
from distill.rows import gather_rows, is_row_sparse, sum_into_rows

BLOCK_USERS = 32
POPULAR_SHARE = 0.5
"""Of π: popular items are in many users' tails, and all others must be seen to be kept down."""


@dataclass(frozen=True)
class Sample:
    """Items that a batch shares.

    Attributes:
        items: Item rows, each once, int64 of shape (S,).
        log_weights: −ln π of them, shape (S,).
    """

    items: torch.Tensor
    log_weights: torch.Tensor


@dataclass(frozen=True)
class ExactItems:
    """Items that each user of a batch has for itself.

    Attributes:
        items: Item rows, int64 of shape (B, E).
        absent: Which of them do not count: those that stand there already, or are hidden, shape (B, E).
        target: What the softmax should be on the first of them, 0 where absent, shape (B, K), K ≤ E.
    """

    items: torch.Tensor
    absent: torch.Tensor
    target: torch.Tensor


class ItemSampler:
    """Draws samples of a catalogue, and finds what of a sample is a user's own."""

    def __init__(self, popularity: npt.NDArray[Any], size: int) -> None:
        """Prepare; 20 bytes an item.

        Args:
            popularity: How often each item was taken, shape (|I|,).
            size: |S|, cut to the catalogue.
        """
        self._inclusion = inclusion_probabilities(popularity, min(size, len(popularity)))
        self._places = torch.full((len(popularity),), -1, dtype=torch.int32)
        self._size = min(size, len(popularity))
        self.shuffle(np.random.default_rng(0))

    def shuffle(self, rng: np.random.Generator) -> None:
        """Draw a new order of the catalogue."""
        self._order = rng.permutation(len(self._inclusion))
        self._ends = np.cumsum(self._inclusion[self._order])

    def draw(self, generator: torch.Generator) -> Sample:
        """Draw a sample; each has one start, uniform in [0, 1)."""
        start = float(torch.rand((), generator=generator, device=generator.device, dtype=torch.float64))
        places = np.searchsorted(self._ends, start + np.arange(self._size), side="right")
        # Rounding may hit an item with π = 1 twice, or pass the end.
        items = self._order[np.unique(np.minimum(places, len(self._order) - 1))]
        weights = -np.log(self._inclusion[items])
        device = generator.device
        return Sample(torch.from_numpy(items).to(device), torch.from_numpy(weights).float().to(device))

    def find(self, sample: Sample, items: torch.Tensor) -> torch.Tensor:
        """Say where items, of any shape, stand in a sample: −1 where they do not."""
        if self._places.device != items.device:
            self._places = self._places.to(items.device)
        self._places[sample.items] = torch.arange(len(sample.items), dtype=torch.int32, device=items.device)
        found: torch.Tensor = self._places[items]
        self._places[sample.items] = -1
        return found


def inclusion_probabilities(popularity: npt.NDArray[Any], size: int) -> npt.NDArray[np.float64]:
    """Share `size` among items, half evenly and half by popularity, none above 1: shape (|I|,)."""
    popularity = popularity.astype(np.float64)
    weights = (1 - POPULAR_SHARE) / len(popularity) + POPULAR_SHARE * popularity / max(1.0, popularity.sum())
    certain = np.zeros(len(weights), dtype=np.bool_)
    while True:
        left = size - np.count_nonzero(certain)
        total = weights[~certain].sum()
        result = np.where(certain, 1.0, weights * left / max(total, np.finfo(np.float64).tiny))
        above = (result >= 1) & ~certain
        if not above.any():
            return result
        certain |= above


def sampled_divergence(
    embeddings: torch.Tensor,
    users: torch.Tensor,
    num_users: int,
    exact: ExactItems,
    sample: Sample,
    owned: tuple[torch.Tensor, torch.Tensor],
    temperature: float,
) -> torch.Tensor:
    """Estimate Σ_u Σ_j q_uj (ln q_uj − ln softmax(s_u / τ)_j) over a batch, q being `exact.target`.

    Args:
        embeddings: Users first, shape (N, d); differentiable.
        users: User rows of the batch, each once, int64 of shape (B,).
        num_users: |U|.
        exact: What is summed exactly.
        sample: What the rest is estimated from.
        owned: Rows of the batch, and places in the sample, of what does not count for that user, in rising order of
            rows: each of shape (n,).
        temperature: τ.

    Returns:
        A scalar. Gradients are sparse where the table is marked.
    """
    apply: Callable[..., torch.Tensor] = _SampledLoss.apply
    return apply(embeddings, users, num_users, exact, sample, owned, temperature, is_row_sparse(embeddings))


def _cross_entropy(
    scores: torch.Tensor, near: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of a softmax over both blocks of scores, which are overwritten: the sum, and the gradient of either block."""
    num_top = target.shape[1]
    highest = torch.maximum(scores.amax(dim=1), near.amax(dim=1))[:, None]
    expected = (near[:, :num_top] * target).sum()
    scores.sub_(highest).exp_()
    near.sub_(highest).exp_()
    total = scores.sum(dim=1, keepdim=True) + near.sum(dim=1, keepdim=True)
    loss = (highest + total.log()).sum() - expected
    near /= total
    near[:, :num_top] -= target
    return loss, scores.div_(total), near


class _SampledLoss(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,
        embeddings: torch.Tensor,
        users: torch.Tensor,
        num_users: int,
        exact: ExactItems,
        sample: Sample,
        owned: tuple[torch.Tensor, torch.Tensor],
        temperature: float,
        sparse: bool,
    ) -> torch.Tensor:
        shared = gather_rows(embeddings, sample.items + num_users)
        columns = shared.T.contiguous()
        own = gather_rows(embeddings, users) / temperature
        of_users, of_shared = torch.empty_like(own), torch.zeros_like(shared)
        of_exact = own.new_empty(*exact.items.shape, own.shape[1])
        loss: torch.Tensor = -torch.special.entr(exact.target).sum()
        bounds = torch.searchsorted(
            owned[0], torch.arange(0, len(users) + BLOCK_USERS, BLOCK_USERS, device=users.device)
        )
        for block, start in enumerate(range(0, len(users), BLOCK_USERS)):
            rows = slice(start, start + BLOCK_USERS)
            scores = torch.addmm(sample.log_weights, own[rows], columns)
            part = slice(int(bounds[block]), int(bounds[block + 1]))
            scores[owned[0][part] - start, owned[1][part]] = HIDDEN_SCORE
            others = gather_rows(embeddings, exact.items[rows] + num_users)
            near = torch.bmm(others, own[rows, :, None]).squeeze(2).masked_fill_(exact.absent[rows], HIDDEN_SCORE)
            added, residual, nearest = _cross_entropy(scores, near, exact.target[rows])
            loss += added
            of_users[rows] = (residual @ shared + torch.bmm(nearest[:, None], others).squeeze(1)) / temperature
            of_shared.addmm_(residual.T, own[rows])
            torch.mul(nearest[:, :, None], own[rows, None], out=of_exact[rows])
        parts = [
            (users, of_users),
            (sample.items + num_users, of_shared),
            (exact.items.reshape(-1) + num_users, of_exact.view(-1, own.shape[1])),
        ]
        ctx.gradient = sum_into_rows((len(embeddings), own.shape[1]), parts, sparse=sparse)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return ctx.gradient * gradients[0], None, None, None, None, None, None, None
