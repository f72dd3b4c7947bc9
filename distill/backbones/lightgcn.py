"""LightGCN: embeddings averaged over the layers of a linear graph convolution, trained with the BPR loss.

The table is what is learned; scores, exports and what a feature loss compares are made of the propagated embeddings, so
serving needs no graph.

References:
    He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020. The
    layers weigh alike (their α_k = 1 / (K + 1)). Their L2 term is on the rows of a batch; ours is Adam's, on all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import build_graph
from distill.graph.propagation import Propagation

INITIAL_STD = 0.1  # the authors'


@dataclass(frozen=True)
class LightGCNSettings:
    """Settings of LightGCN.

    Attributes:
        num_layers: L, how often embeddings spread to the neighbours.
    """

    num_layers: int = 3

    def __post_init__(self) -> None:
        if self.num_layers < 1:
            raise SettingError(f"num_layers: {self.num_layers} is below 1; without layers use --backbone bprmf")


class LightGCN(BPRMF):
    """BPRMF with a fixed graph convolution between its table and its scores; a step costs 2 L sparse products more."""

    Settings = LightGCNSettings
    is_table = False
    initial_std = INITIAL_STD

    def __init__(self, num_users: int, num_items: int, dim: int, propagation: Propagation) -> None:
        """Draw the table; `propagation` is over the user–item graph of the training interactions."""
        super().__init__(num_users, num_items, dim)
        self.propagation = propagation

    @classmethod
    def build(cls, settings: LightGCNSettings, data: Interactions, dim: int) -> Self:
        """Build the graph of the training interactions and draw the table."""
        return cls(data.num_users, data.num_items, dim, Propagation(build_graph(data), settings.num_layers))

    def embeddings(self) -> torch.Tensor:
        """Propagate the table: shape (N, d)."""
        propagated: torch.Tensor = self.propagation(self.table)
        return propagated
