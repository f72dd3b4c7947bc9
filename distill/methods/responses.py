"""What the response methods share: settings, the teacher's smoothed scores, and two ways to the student's scores.

The filter of FreqD applies to scores too: the scores of h(L) X_t are the teacher's, smoothed over the graph. With α = 0
they are the teacher's own.

`catalogue_loss` takes a loss of the whole catalogue's scores forward and backward in one pass over blocks of scores.
`catalogue_divergence` is that of the softmax.
For a user with score row s and a target distribution q over items, the loss is the divergence of softmax(s / τ) from q,
Σ_j q_j (ln q_j − ln softmax(s / τ)_j): the cross-entropy less the entropy of q, so that 0 is perfect. Its gradient with
respect to s is (softmax(s / τ) − q) / τ. Both are taken while the block is in the cache, so no score outlives its
block, whatever the batch.

Cost of a step with B users: 6 B |I| d_s floating-point operations (scores, and the gradients of users and items)
and B |I| exponentials; the optimizer apart, nothing else grows with the catalogue.

`selected_scores` are the scores of a few items a user, differentiable, without a (B, K, d) tensor. Plain indexing makes
B K rows of d floats, writes them, reads them, and lets autograd scatter as many back. Here the rows are gathered a
block at a time into a buffer that stays in the cache, the gradient of the owners is an embedding bag, and that of the
others a transposed sparse product: a fifth of the time (4 ms instead of 20 for B = 1,700, K = 80, d = 20 on one core).

Cost of a call and its gradient: 6 B K d floating-point operations; B K d floats read in each of three passes, none of
them written to memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import build_graph
from distill.graph.filters import GraphFilter, linear_coefficients
from distill.methods.base import Teacher, require_not_negative
from distill.methods.candidates import gathered_scores
from distill.rows import is_row_sparse, spread_into_rows, sum_into_rows

AnySettings = TypeVar("AnySettings", bound="HasTemperature")
TRAINING_DEFAULTS = {"batch_size": 256, "learning_rate": 5e-3, "weight_decay": 0.0}
BLOCK_USERS = 32
"""Few enough that a block of scores stays in the cache; from 64 rows the thin products are several times slower."""
BLOCK_BYTES = 64 * 2**20
"""Bound on a block of scores where the catalogue is very large."""
HIDDEN_SCORE = -1e9
"""Of items left out: its exponential is 0, and unlike −∞ it may be multiplied by 0."""


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


def scale_temperature(settings: AnySettings, student: Backbone) -> AnySettings:
    """Return the settings with τ in units of the student's scores, its `score_temperature`."""
    return replace(settings, temperature=settings.temperature * student.score_temperature)


def hidden_items(data: Interactions, *, hide_train: bool) -> sp.csr_matrix:
    """Return what is left out of every list, CSR of shape (|U|, |I|): the training items, or nothing."""
    return data.train if hide_train else sp.csr_matrix(data.train.shape, dtype=np.float32)


def smooth_teacher(teacher: Teacher, data: Interactions, alpha: float) -> Teacher:
    """Give the teacher the features h(L) X_t, h(λ) = 1 − αλ (FreqD, arXiv 2411.10676), over the user–item graph.

    Raises:
        SettingError: The teacher's lists are not made of its features.
    """
    if alpha == 0:
        return teacher
    if teacher.by_lists:
        raise SettingError("alpha: it smooths a teacher's embeddings, and this one teaches by lists; leave it out")
    features = GraphFilter(build_graph(data), linear_coefficients(alpha)).filter_all(np.asarray(teacher.features))
    return replace(teacher, features=torch.from_numpy(features))


def catalogue_divergence(
    embeddings: torch.Tensor,
    users: torch.Tensor,
    num_users: int,
    target: TopTarget | TeacherTarget,
    temperature: float,
) -> torch.Tensor:
    """Compute Σ_u KL(q_u ‖ softmax(s_u / τ)) over the batch (Hinton et al., 2015, eq. 1, over a catalogue).

    Args:
        embeddings: Users first, shape (N, d); differentiable.
        users: User rows of the batch, each once, int64 of shape (B,).
        num_users: |U|.
        target: q.
        temperature: τ, of the student's scores.

    Returns:
        A scalar.
    """
    return catalogue_loss(embeddings, users, num_users, temperature, partial(_divergence, target))


BlockLoss = Callable[[slice, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Takes rows of a batch and their scores, shape (b, |I|), which it may overwrite; returns the loss and its gradient."""


def catalogue_loss(
    embeddings: torch.Tensor, users: torch.Tensor, num_users: int, temperature: float, block_loss: BlockLoss
) -> torch.Tensor:
    """Sum a loss of the scores of the whole catalogue over the batch, a block of users at a time.

    Args:
        embeddings: Users first, shape (N, d); differentiable.
        users: User rows of the batch, each once, int64 of shape (B,).
        num_users: |U|.
        temperature: τ; the block is of scores / τ.
        block_loss: Called once a block.

    Returns:
        A scalar.
    """
    apply: Callable[..., torch.Tensor] = _CatalogueLoss.apply
    return apply(embeddings, users, num_users, temperature, block_loss)


def _divergence(
    target: TopTarget | TeacherTarget, rows: slice, scores: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if target.hidden is not None:
        target.hidden.hide(rows, scores)
    residual = torch.softmax(scores, dim=1)
    # ln Σ exp s, from the largest score and its probability, which cannot vanish.
    normalizer = scores.amax(dim=1) - residual.amax(dim=1).log()
    loss = normalizer.sum() - target.mean_score(rows, scores)
    target.subtract_from(rows, residual)
    return loss, residual


class TopTarget:
    """A target distribution on K items a user: what a teacher would recommend."""

    def __init__(self, items: torch.Tensor, probabilities: torch.Tensor, hidden: ItemSets | None = None) -> None:
        """Take over the distribution.

        Args:
            items: Item rows, int64 of shape (B, K).
            probabilities: q, rows sum to 1, shape (B, K).
            hidden: Items that are left out of the student's softmax too; q must be 0 there.
        """
        self.items = items
        self.probabilities = probabilities
        self.hidden = hidden

    def mean_score(self, rows: slice, scores: torch.Tensor) -> torch.Tensor:
        """Sum q (s − ln q) over a block: a scalar."""
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
        """Take over the teacher's embeddings of the batch's users, (B, d_t), and of all items, (|I|, d_t), and τ."""
        self._users = users / temperature
        self._items = items
        self._block = users.new_empty(0)

    def mean_score(self, rows: slice, scores: torch.Tensor) -> torch.Tensor:
        """Sum q (s − ln q) over a block: a scalar."""
        logits = self._users[rows] @ self._items.T
        normalizer = logits.logsumexp(dim=1, keepdim=True)
        self._block = torch.exp(logits - normalizer)
        entropy = (normalizer.squeeze(1) - (self._block * logits).sum(dim=1)).sum()
        return (self._block * scores).sum() + entropy

    def subtract_from(self, rows: slice, probabilities: torch.Tensor) -> None:
        """Subtract q from a block of probabilities in place."""
        probabilities.sub_(self._block)


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


def selected_scores(table: torch.Tensor, owners: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Compute inner products ⟨x_b, x_bk⟩ of rows of one table.

    Args:
        table: Shape (N, d); differentiable.
        owners: Its rows x_b, each once, int64 of shape (B,).
        others: Its rows x_bk, none of them an owner, int64 of shape (B, K).

    Returns:
        Shape (B, K).
    """
    apply: Callable[..., torch.Tensor] = _SelectedScores.apply
    return apply(table, owners, others)


class _CatalogueLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embeddings: torch.Tensor,
        users: torch.Tensor,
        num_users: int,
        temperature: float,
        block_loss: BlockLoss,
    ) -> torch.Tensor:
        items = embeddings[num_users:]
        columns = items.T.contiguous()
        own = embeddings[users] / temperature
        of_users, of_items = torch.empty_like(own), torch.zeros_like(items)
        loss = embeddings.new_zeros(())
        block = max(1, min(BLOCK_USERS, BLOCK_BYTES // (4 * len(items))))
        for start in range(0, len(users), block):
            rows = slice(start, start + block)
            added, residual = block_loss(rows, own[rows] @ columns)
            loss += added
            of_users[rows] = (columns @ residual.T).T / temperature
            of_items.addmm_(residual.T, own[rows])
        ctx.save_for_backward(users, of_users, of_items)
        ctx.num_users, ctx.shape, ctx.sparse = num_users, embeddings.shape, is_row_sparse(embeddings)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        users, of_users, of_items = ctx.saved_tensors
        all_items = torch.arange(ctx.num_users, ctx.shape[0], device=users.device)
        parts = ((users, of_users * gradients[0]), (all_items, of_items * gradients[0]))
        return sum_into_rows(ctx.shape, parts, sparse=ctx.sparse), None, None, None, None


class _SelectedScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, owners: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(table, owners, others)
        ctx.sparse = is_row_sparse(table)
        return gathered_scores(table[owners], table, others)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weights = gradients[0].contiguous()
        table, owners, others = ctx.saved_tensors
        own = F.embedding_bag(others, table, per_sample_weights=weights, mode="sum")
        starts = torch.arange(0, others.numel(), others.shape[1], device=others.device)
        bags = (others.reshape(-1), weights.reshape(-1), starts)
        result = spread_into_rows(len(table), table[owners], bags, sparse=ctx.sparse)
        if ctx.sparse:
            result = result + sum_into_rows(table.shape, [(owners, own)], sparse=True)
        else:
            result[owners] = own
        return result, None, None
