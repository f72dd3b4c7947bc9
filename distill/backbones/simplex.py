"""SimpleX: users averaged with their items' mean, trained by a cosine contrastive loss against many negatives.

    h_u = γ e_u + (1 − γ) V · mean of e_i over the user's training items;  score(u, i) = cos(h_u, e_i)
    loss = Σ_(u,i) [ 1 − cos(h_u, e_i) + (w / n_u) Σ_j max(0, cos(h_u, e_j) − m) ]

Negatives are drawn once a batch and shared by its pairs, less those that the user has taken, where the paper draws
for each pair. What is left to a pair is as many uniform items not taken either way, so its expected loss is the same;
the pairs of a batch are no longer independent, and their scores are one matrix product. The authors' attention
aggregators and dropout are left out.

RecBole's SimpleX draws for each pair among the items not taken, cuts histories to a random 50 items, drops out a tenth
of h_u, and adds the norms of a batch's rows where ours is Adam's L2 on all; the rest is the same.

References:
    Mao et al., "SimpleX: A Simple and Strong Baseline for Collaborative Filtering", CIKM 2021: the cosine contrastive
    loss, and behaviour aggregation by average pooling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from distill.backbones.base import Backbone
from distill.backbones.sampling import Batch, Sampler, SharedNegativesSampler, taken_pairs
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.propagation import SparseMatrix

INITIAL_STD = 0.01
EPSILON = 1e-8
"""Floor of a length that is divided by."""


@dataclass(frozen=True)
class SimpleXSettings:
    """Settings of SimpleX.

    Attributes:
        margin: m, cosine above which a negative is pushed away.
        negative_weight: w, of the negatives' mean against the positive.
        num_negatives: n, negatives a batch.
        gamma: γ, share of the user's own embedding against their items'.
    """

    margin: float = 0.5
    negative_weight: float = 10.0
    num_negatives: int = 1000
    gamma: float = 0.5

    def __post_init__(self) -> None:
        if not -1.0 <= self.margin < 1.0:
            raise SettingError(f"margin: {self.margin} is not a cosine in [-1, 1)")
        if self.negative_weight <= 0:
            raise SettingError(f"negative_weight: {self.negative_weight} is not above 0")
        if self.num_negatives < 1:
            raise SettingError(f"num_negatives: {self.num_negatives} is below 1")
        if not 0.0 <= self.gamma <= 1.0:
            raise SettingError(f"gamma: {self.gamma} is not in [0, 1]")


class SimpleX(Backbone):
    """One table of raw embeddings, the linear map V, and each user's training items."""

    Settings = SimpleXSettings
    score_temperature = 0.05

    def __init__(self, train: sp.csr_matrix, dim: int, settings: SimpleXSettings) -> None:
        """Take the users' training items, CSR of shape (|U|, |I|), and draw the parameters."""
        super().__init__(train.shape[0], train.shape[1], dim)
        self.settings = settings
        history = sp.csr_matrix(sp.diags_array(1.0 / np.maximum(np.diff(train.indptr), 1)) @ train)
        self.history_mean, self.history_mean_transposed = SparseMatrix(history), SparseMatrix(history.T.tocsr())
        self.table = nn.Parameter(torch.randn(sum(train.shape), dim).mul_(INITIAL_STD))
        self.history_map = nn.Linear(dim, dim, bias=False)
        self._train = train

    @classmethod
    def build(cls, settings: SimpleXSettings, data: Interactions, dim: int) -> Self:
        """Make it for the training interactions."""
        return cls(data.train, dim, settings)

    @property
    def features(self) -> torch.Tensor:
        """The table, shape (N, d)."""
        return self.table

    def embeddings(self) -> torch.Tensor:
        """Compute users with their history, and items, all of length one: shape (N, d); inner products are cosines."""
        apply: Callable[..., torch.Tensor] = _AggregateAndNormalize.apply
        return apply(self.table, self.history_map.weight, self)

    def base_loss(self, batch: Batch, embeddings: torch.Tensor) -> torch.Tensor:
        """Sum the cosine contrastive loss over the batch: a scalar.

        Args:
            batch: Pairs of users and positives, (B,) each; negatives of any number, shared by all pairs.
            embeddings: What `embeddings` returned for this step, shape (N, d).
        """
        items = torch.unique(batch.negatives)
        rows = torch.cat([batch.users, self.num_users + batch.positives, self.num_users + items])
        taken = taken_pairs(self._train, batch.users.numpy(force=True), items.numpy(force=True))
        apply: Callable[..., torch.Tensor] = _CosineContrastiveLoss.apply
        return apply(F.embedding(rows, embeddings), len(batch.users), taken, self.settings)

    def sampler(self, train: sp.csr_matrix, batch_size: int) -> Sampler:
        """Draw batches with shared negatives."""
        return SharedNegativesSampler(train, batch_size, self.settings.num_negatives)


class _AggregateAndNormalize(torch.autograd.Function):
    """Raw table and V in, unit rows out; by hand, because autograd passes over the whole table far more often."""

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, history_map: torch.Tensor, model: SimpleX) -> torch.Tensor:
        users, items = table[: model.num_users], table[model.num_users :]
        gamma = model.settings.gamma
        history = model.history_mean.multiply(items)
        users = torch.addmm(users, history, history_map.T, beta=gamma, alpha=1.0 - gamma)
        lengths = torch.cat([users.norm(dim=1), items.norm(dim=1)]).clamp_min_(EPSILON)[:, None]
        unit = torch.empty_like(table)
        torch.div(users, lengths[: model.num_users], out=unit[: model.num_users])
        torch.div(items, lengths[model.num_users :], out=unit[model.num_users :])
        ctx.model = model
        ctx.save_for_backward(history_map, history, lengths, unit)
        return unit

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        history_map, history, lengths, unit = ctx.saved_tensors
        model, gamma = ctx.model, ctx.model.settings.gamma
        along = torch.linalg.vecdot(unit, gradients[0])[:, None]
        gradient = torch.addcmul(gradients[0], unit, along, value=-1.0).div_(lengths)
        users, items = gradient[: model.num_users], gradient[model.num_users :]
        items.add_(model.history_mean_transposed.multiply(users @ history_map), alpha=1.0 - gamma)
        map_gradient = (users.T @ history).mul_(1.0 - gamma)
        users.mul_(gamma)
        return gradient, map_gradient, None


class _CosineContrastiveLoss(torch.autograd.Function):
    """Σ_b [ 1 − ⟨u_b, p_b⟩ + (w / n_b) Σ_j max(0, ⟨u_b, n_j⟩ − m) ], in three matrix products and one (B, n) matrix."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, num_pairs: int, taken: tuple[np.ndarray, np.ndarray], settings: SimpleXSettings
    ) -> torch.Tensor:
        users, positives, negatives = rows[:num_pairs], rows[num_pairs : 2 * num_pairs], rows[2 * num_pairs :]
        pairs, items = (torch.from_numpy(places).to(rows.device) for places in taken)
        excess = (users @ negatives.T).sub_(settings.margin)
        excess[pairs, items] = 0.0
        excess.clamp_min_(0.0)
        left = len(negatives) - torch.bincount(pairs, minlength=num_pairs)
        weights = settings.negative_weight / left.clamp_min(1)
        loss: torch.Tensor = (1.0 - (users * positives).sum(dim=1)).sum() + weights @ excess.sum(dim=1)
        ctx.save_for_backward(users, positives, negatives, excess.sign_().mul_(weights[:, None]))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        users, positives, negatives, slopes = ctx.saved_tensors
        by_row = torch.cat([(slopes @ negatives).sub_(positives), -users, slopes.T @ users])
        return by_row.mul_(gradients[0]), None, None, None
