"""What a backbone must offer to be trained, distilled and exported."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from distill.sampling import Batch


class Backbone(nn.Module, ABC):
    """A recommender whose score is the inner product of a user and an item embedding.

    Attributes:
        num_users: |U|.
        num_items: |I|.
        dim: d.
    """

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        """Remember the sizes; parameters are the subclass's."""
        super().__init__()
        self.num_users = num_users
        self.num_items = num_items
        self.dim = dim

    @property
    @abstractmethod
    def features(self) -> torch.Tensor:
        """Raw features of all entities, users first: shape (N, d), what a feature loss acts on."""

    @abstractmethod
    def base_loss(self, batch: Batch) -> torch.Tensor:
        """The backbone's own training loss, summed over the batch: a scalar."""

    @abstractmethod
    def final_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What is evaluated and exported: users (|U|, d) and items (|I|, d), without gradients."""
