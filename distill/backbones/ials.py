"""iALS: a table that an epoch solves for in closed form, by the loss and the solver of `distill.baselines.ials`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import scipy.sparse as sp
import torch

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch
from distill.baselines.ials import INITIAL_STD, IALSSettings, penalties, solve_rows
from distill.data.interactions import Interactions
from distill.rows import gather_rows


class IALS(BPRMF):
    """A table like BPRMF's that an epoch solves for: first all users, then all items."""

    Settings = IALSSettings
    training_defaults: ClassVar[Mapping[str, float]] = {"epochs": 100, "patience": 5, "eval_every": 1}
    score_temperature = 0.1

    def __init__(self, train: sp.csr_matrix, dim: int, settings: IALSSettings) -> None:
        """Draw the table; `train` is the CSR of shape (|U|, |I|) that is fitted."""
        super().__init__(train.shape[0], train.shape[1], dim)
        with torch.no_grad():
            self.table.normal_(std=INITIAL_STD / dim**0.5)
        self.settings = settings
        self._train = train
        self._train_transposed = train.T.tocsr()

    @classmethod
    def build(cls, settings: IALSSettings, data: Interactions, dim: int) -> Self:
        """Make it for the training interactions."""
        return cls(data.train, dim, settings)

    def base_loss(self, batch: Batch, embeddings: torch.Tensor) -> torch.Tensor:
        """Sum (1 − s⁺)² + α₀ |U| |I| / |train| s⁻² over the batch: a scalar, the loss by one negative a pair.

        That is what a student of this kind adds to its distillation loss; alone it is solved.
        """
        users = gather_rows(embeddings, batch.users)
        positive, negative = (
            (users * gather_rows(embeddings, self.num_users + items)).sum(dim=1)
            for items in (batch.positives, batch.negatives)
        )
        weight = self.settings.unobserved_weight * self.num_users * self.num_items / self._train.nnz
        loss: torch.Tensor = ((1 - positive) ** 2 + weight * negative**2).sum()
        return loss

    @torch.no_grad()
    def solve_epoch(self) -> float:
        """Solve for all users, then for all items; return the loss."""
        users, items = self.table[: self.num_users], self.table[self.num_users :]
        solve_rows(users, items, self._train, self.settings)
        fitted = solve_rows(items, users, self._train_transposed, self.settings)
        held_back = float(penalties(self._train, self.settings).to(users.device) @ users.square().sum(dim=1))
        return held_back + int(self._train.nnz) - fitted
