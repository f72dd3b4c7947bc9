"""What a backbone must offer to be trained, distilled and exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import scipy.sparse as sp
import torch
from torch import nn

from distill.backbones.sampling import Batch, PairwiseSampler, Sampler
from distill.data.interactions import Interactions
from distill.settings import NoSettings


class Backbone(nn.Module, ABC):
    """A recommender whose score is the inner product of a user and an item embedding.

    Attributes:
        Settings: Frozen dataclass of its settings.
        training_defaults: Training options that suit it better than the general ones.
        is_table: Whether the embeddings are the parameter `features` itself, so that a batch moves its own rows alone.
        score_temperature: τ of a softmax over its scores, 1 for inner products that a pairwise loss has trained. Scores
            that end at 1, such as cosines, give a flat softmax over a catalogue without a small one.
        num_users: |U|.
        num_items: |I|.
        dim: d.
    """

    Settings: ClassVar[type[Any]] = NoSettings
    training_defaults: ClassVar[Mapping[str, float]] = {}
    is_table: ClassVar[bool] = False
    score_temperature: ClassVar[float] = 1.0

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        """Keep |U|, |I| and d; parameters are the subclass's."""
        super().__init__()
        self.num_users = num_users
        self.num_items = num_items
        self.dim = dim

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, data: Interactions, dim: int) -> Self:
        """Make a backbone of dimension d with fresh parameters, and the graph it needs from the training split.

        Args:
            settings: An instance of `Settings`.
            data: Only its sizes and its training split may be used.
            dim: d.
        """

    @property
    @abstractmethod
    def features(self) -> torch.Tensor:
        """Raw features of all entities, users first: shape (N, d), what a feature loss acts on."""

    @abstractmethod
    def embeddings(self) -> torch.Tensor:
        """Compute the final embeddings, whose inner product is the score: shape (N, d), users first, differentiable."""

    @abstractmethod
    def base_loss(self, batch: Batch, embeddings: torch.Tensor) -> torch.Tensor:
        """Sum the backbone's own training loss over the batch: a scalar.

        Args:
            batch: Users, positives and negatives.
            embeddings: What `embeddings` returned for this step, shape (N, d).
        """

    def final_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is evaluated and exported: users (|U|, d) and items (|I|, d), without gradients."""
        with torch.no_grad():
            table = self.embeddings().detach()
        return table[: self.num_users], table[self.num_users :]

    def solve_epoch(self) -> float | None:
        """Do a whole epoch in closed form and return the loss, where a backbone can; None: it is trained by steps.

        It is asked where nothing but its own loss is to be learned.
        """
        return None

    def sampler(self, train: sp.csr_matrix, batch_size: int) -> Sampler:
        """Make what draws the batches of its own loss from `train`, CSR of shape (|U|, |I|)."""
        return PairwiseSampler(train, batch_size)
