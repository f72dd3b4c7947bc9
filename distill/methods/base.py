"""`Method`: what a distillation method must offer to the trainer, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import nn

from distill.backbones.base import Backbone
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.candidates import Lists, gathered_scores, rank_unseen
from distill.methods.top_lists import TopLists
from distill.settings import NoSettings

BatchUnit = Literal["interactions", "users"]


class Preferences(Protocol):
    """What a teacher prefers for every user, some items left out."""

    def top(self, length: int) -> Lists:
        """Rank the catalogue for every user.

        Args:
            length: K, cut to the catalogue.

        Returns:
            Item rows, best first, shape (|U|, K); what is left out fills the end where a user has too few others.
        """

    def score(self, items: Lists, device: torch.device) -> torch.Tensor:
        """Score items of every user, shape (|U|, K) both, on a device."""

    def of(self, users: npt.NDArray[np.int64]) -> Preferences:
        """Those of some users alone, rows (B,)."""

    def listed(self, length: int) -> TopLists:
        """Rank as `top`, and keep the scores: what some users prefer can then be looked up."""


@dataclass(frozen=True)
class EmbeddingPreferences:
    """Those of inner products.

    Attributes:
        users: Shape (|U|, d_t).
        items: Shape (|I|, d_t).
        hidden: What is left out, CSR of shape (|U|, |I|).
    """

    users: torch.Tensor
    items: torch.Tensor
    hidden: sp.csr_matrix

    def top(self, length: int) -> Lists:
        """Rank by inner products, 2 |U| |I| d_t operations."""
        return rank_unseen(self.users, self.items, self.hidden, length, progress=True)

    def score(self, items: Lists, device: torch.device) -> torch.Tensor:
        """Compute 2 |U| K d_t operations."""
        rows = torch.from_numpy(items.astype(np.int64)).to(device)
        return gathered_scores(self.users.to(device), self.items.to(device), rows)

    def of(self, users: npt.NDArray[np.int64]) -> EmbeddingPreferences:
        """Take rows of users."""
        return EmbeddingPreferences(self.users[torch.from_numpy(users)], self.items, self.hidden[users])

    def listed(self, length: int) -> TopLists:
        """Rank, and score what is ranked."""
        items = self.top(length)
        return TopLists(items, self.score(items, self.users.device).cpu().numpy(), len(self.items))


@dataclass(frozen=True)
class Teacher:
    """The teacher's final features, whose inner product is its score.

    Attributes:
        features: float32, users first, shape (N, d_t).
        num_users: |U|.
        trajectory: Its features at earlier epochs, earliest first, float16 of shape (N, d_t) each; often none.
        by_lists: Whether it prefers something else than what its features score highest.
    """

    features: torch.Tensor
    num_users: int
    trajectory: tuple[torch.Tensor, ...] = ()
    by_lists: ClassVar[bool] = False

    @property
    def dim(self) -> int:
        """d_t."""
        return int(self.features.shape[1])

    @property
    def users(self) -> torch.Tensor:
        """Shape (|U|, d_t)."""
        return self.features[: self.num_users]

    @property
    def items(self) -> torch.Tensor:
        """Shape (|I|, d_t)."""
        return self.features[self.num_users :]

    def preferences(self, hidden: sp.csr_matrix) -> Preferences:
        """Say what it prefers among what is not hidden, CSR of shape (|U|, |I|)."""
        return EmbeddingPreferences(self.users, self.items, hidden)


@dataclass(frozen=True)
class Step:
    """What a method sees of one training step.

    Attributes:
        batch: Users, positives and negatives.
        features: The student's raw features, users first, shape (N, d_s), differentiable.
        embeddings: Its final embeddings, whose inner product is the score, likewise.
        generator: Randomness of the step, on the device of the tensors.
    """

    batch: Batch
    features: torch.Tensor
    embeddings: torch.Tensor
    generator: torch.Generator


class Method(nn.Module, ABC):
    """A loss added to the backbone's own; its parameters (a projector, say) train along and are discarded.

    Attributes:
        Settings: Frozen dataclass of what can be set.
        needs_teacher: Whether it learns from one.
        learns_lists: Whether the teacher's `preferences` are all that it learns, so that co-teachers can be blended in.
        batches: What an epoch goes through: "interactions", or "users" for losses over the whole catalogue.
        training_defaults: Training options that suit it better than the general ones.
        base_weight: Factor of the backbone's own loss.
    """

    Settings: ClassVar[type[Any]] = NoSettings
    needs_teacher: ClassVar[bool] = True
    learns_lists: ClassVar[bool] = False
    batches: BatchUnit = "interactions"
    training_defaults: ClassVar[Mapping[str, float]] = {}
    base_weight: float = 1.0

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, data: Interactions, student: Backbone, teacher: Teacher | None) -> Method:
        """Prepare everything that does not change during training.

        Args:
            settings: An instance of `Settings`.
            data: The training split is what may be learned from.
            student: The backbone that is distilled into.
            teacher: What it learns from.

        Raises:
            SettingError: The method needs a teacher and there is none.
        """

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Draw what stays fixed for an epoch; nothing by default.

        Args:
            student: As it is before the epoch.
            rng: Seeded by the run's seed and the epoch.
        """

    @abstractmethod
    def distillation_loss(self, step: Step) -> torch.Tensor | None:
        """Compute the weighted loss to add for this step, a scalar, or None where there is nothing to add."""


def require_teacher(teacher: Teacher | None, method: str, *, features: bool = True) -> Teacher:
    """Return the teacher.

    Args:
        teacher: Of the run.
        method: Who asks.
        features: Whether its lists are not enough.

    Raises:
        SettingError: There is none, or none with features.
    """
    if teacher is None or (features and teacher.dim == 0):
        raise SettingError(f"teacher: method '{method}' distills from one; give --teacher RUN")
    return teacher


def require_not_negative(settings: Any, *names: str) -> None:
    """Check weights of a settings object.

    Raises:
        SettingError: One of them is negative.
    """
    for name in names:
        if getattr(settings, name) < 0:
            raise SettingError(f"{name}: {getattr(settings, name)} is negative; give 0 or more")
