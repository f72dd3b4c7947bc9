"""LPMF: matrix factorisation whose table passes through FreqD's low-pass filter before it scores.

Final embeddings are h(L) X with h(λ) = 1 − αλ over the user–item graph. For α < ½ the filter can be inverted, so
LPMF has the same models within reach as BPRMF; what changes is how it gets there. A gradient passes through h(L) on
its way to X, and X through h(L) on its way to the score, so that a step of gradient descent moves frequency k of the
embeddings by h(λ_k)² as much: low frequencies are learned first, and early stopping keeps more of them. It is FreqD's
stress, put into the student instead of the loss. Exported are the filtered embeddings: serving needs no graph.

Cost of a step: two sparse products of width d_s on top of BPRMF's.

References:
    FreqD, arXiv 2411.10676, for the filter; Rendle et al., UAI 2009, for the loss. With α = ½ it is LightGCN (He et
    al., SIGIR 2020) of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from distill.backbones.base import Backbone
from distill.backbones.bprmf import INITIAL_STD
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph import bipartite_adjacency, symmetric_normalization
from distill.pairwise_loss import pairwise_loss
from distill.propagation import LowPass
from distill.sampling import Batch


@dataclass(frozen=True)
class LPMFSettings:
    """What can be set.

    Attributes:
        alpha: α of the filter, in (0, 1].
    """

    alpha: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise SettingError(f"alpha: {self.alpha} is outside (0, 1]; without a filter use --backbone bprmf")


class LPMF(Backbone):
    """One table of raw embeddings and a fixed filter."""

    Settings = LPMFSettings

    def __init__(self, num_users: int, num_items: int, dim: int, low_pass: LowPass) -> None:
        """Draw the table like BPRMF's.

        Args:
            num_users: |U|.
            num_items: |I|.
            dim: d.
            low_pass: Over the user–item graph of the training interactions.
        """
        super().__init__(num_users, num_items, dim)
        self.low_pass = low_pass
        self.table = nn.Parameter(torch.randn(num_users + num_items, dim) * INITIAL_STD)

    @classmethod
    def build(cls, settings: LPMFSettings, data: Interactions, dim: int) -> Self:
        """Build the graph of the training interactions and draw the table."""
        graph = symmetric_normalization(bipartite_adjacency(data.train))
        return cls(data.num_users, data.num_items, dim, LowPass(graph, settings.alpha))

    @property
    def features(self) -> torch.Tensor:
        """The table, shape (N, d)."""
        return self.table

    def embeddings(self) -> torch.Tensor:
        """The table filtered, shape (N, d)."""
        filtered: torch.Tensor = self.low_pass(self.table)
        return filtered

    def base_loss(self, batch: Batch, embeddings: torch.Tensor) -> torch.Tensor:
        """BPR over the batch, summed: a scalar."""
        offset = self.num_users
        return pairwise_loss(embeddings, batch.users, offset + batch.positives, offset + batch.negatives)
