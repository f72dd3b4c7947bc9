"""LightGCN: embeddings averaged over the layers of a linear graph convolution, trained with the BPR loss.

The table is what is learned, and what a feature loss acts on in a student; scores, exports and a teacher's features
are made of the propagated embeddings, so serving needs no graph.

References:
    He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020. The
    layers weigh alike (their α_k = 1 / (K + 1)). Their L2 term is on the rows of a batch; ours is Adam's, on all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from distill.backbones.base import Backbone
from distill.backbones.pairwise_loss import pairwise_loss
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import bipartite_adjacency, symmetric_normalization
from distill.graph.propagation import Propagation

INITIAL_STD = 0.1


@dataclass(frozen=True)
class LightGCNSettings:
    """What can be set.

    Attributes:
        num_layers: L, how often embeddings spread to the neighbours.
    """

    num_layers: int = 3

    def __post_init__(self) -> None:
        if self.num_layers < 1:
            raise SettingError(f"num_layers: {self.num_layers} is below 1; without layers use --backbone bprmf")


class LightGCN(Backbone):
    """One table of raw embeddings and a fixed graph; a step costs 2 L sparse products on top of BPRMF's."""

    Settings = LightGCNSettings

    def __init__(self, num_users: int, num_items: int, dim: int, propagation: Propagation) -> None:
        """Draw the table from a normal distribution of standard deviation `INITIAL_STD`, as the authors do.

        Args:
            num_users: |U|.
            num_items: |I|.
            dim: d.
            propagation: Over the user–item graph of the training interactions.
        """
        super().__init__(num_users, num_items, dim)
        self.propagation = propagation
        self.table = nn.Parameter(torch.randn(num_users + num_items, dim) * INITIAL_STD)

    @classmethod
    def build(cls, settings: LightGCNSettings, data: Interactions, dim: int) -> Self:
        """Build the graph of the training interactions and draw the table."""
        graph = symmetric_normalization(bipartite_adjacency(data.train))
        return cls(data.num_users, data.num_items, dim, Propagation(graph, settings.num_layers))

    @property
    def features(self) -> torch.Tensor:
        """The table, shape (N, d)."""
        return self.table

    def embeddings(self) -> torch.Tensor:
        """The table propagated, shape (N, d)."""
        propagated: torch.Tensor = self.propagation(self.table)
        return propagated

    def base_loss(self, batch: Batch, embeddings: torch.Tensor) -> torch.Tensor:
        """BPR over the batch, summed: a scalar."""
        offset = self.num_users
        return pairwise_loss(embeddings, batch.users, offset + batch.positives, offset + batch.negatives)
