"""BPRMF: matrix factorisation trained with the pairwise BPR loss.

References:
    Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import nn

from distill.backbones.base import Backbone
from distill.backbones.pairwise_loss import pairwise_loss
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.rows import empty_table

INITIAL_STD = 0.01


class BPRMF(Backbone):
    """One embedding a user, one an item, in a single table, so that a step makes one gradient buffer.

    Attributes:
        initial_std: Standard deviation of the normal distribution that the table is drawn from.
    """

    is_table = True
    initial_std: ClassVar[float] = INITIAL_STD

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        """Draw a table of shape (|U| + |I|, d)."""
        super().__init__(num_users, num_items, dim)
        self.table = nn.Parameter(empty_table(num_users + num_items, dim).normal_().mul_(self.initial_std))

    @classmethod
    def build(cls, settings: Any, data: Interactions, dim: int) -> Self:
        """Draw fresh embeddings; there is nothing to set."""
        return cls(data.num_users, data.num_items, dim)

    @property
    def features(self) -> torch.Tensor:
        """The table itself, shape (N, d)."""
        return self.table

    def embeddings(self) -> torch.Tensor:
        """Return the table itself, shape (N, d)."""
        return self.table

    def base_loss(self, batch: Batch, embeddings: torch.Tensor) -> torch.Tensor:
        """Sum the BPR loss over the batch: a scalar."""
        offset = self.num_users
        return pairwise_loss(embeddings, batch.users, offset + batch.positives, offset + batch.negatives)
