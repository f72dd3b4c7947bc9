"""Cross-entropy to the teacher's top-K: the student's softmax over the whole catalogue is to put its mass there.

The teacher ranks once, before training; a step reads K items and probabilities a user, whatever d_t is. Cost of a
step with B users: that of `catalogue_softmax`, 6 B |I| d_s operations and B |I| exponentials.

References:
    Hinton, Vinyals and Dean, arXiv 1503.02531, 2015, with the teacher's distribution cut to its head, as the vanilla
    baseline of RCE-KD (arXiv 2509.20989) does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation import rank_items
from distill.methods.base import Method, Step, Teacher, require_teacher
from distill.methods.catalogue_softmax import TopTarget, catalogue_divergence
from distill.methods.response import TRAINING_DEFAULTS, ResponseSettings, smooth_teacher

CHUNK_USERS = 256


@dataclass(frozen=True)
class CrossEntropySettings(ResponseSettings):
    """Settings beside those of `ResponseSettings`.

    Attributes:
        num_top: K, the teacher's items that count a user; at most the catalogue.
    """

    temperature: float = 2.0
    num_top: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_top < 1:
            raise SettingError(f"num_top: {self.num_top} is below 1")


class CrossEntropy(Method):
    """Learns what the teacher puts first, training items included."""

    Settings = CrossEntropySettings
    batches = "users"
    training_defaults = TRAINING_DEFAULTS

    def __init__(self, settings: CrossEntropySettings, teacher: Teacher, items: torch.Tensor) -> None:
        """Keep the teacher's distribution over its top items.

        Args:
            settings: Weight, temperature, base weight.
            teacher: Smoothed already.
            items: Its top items, best first, int64 of shape (|U|, K).
        """
        super().__init__()
        self.settings = settings
        self.base_weight = settings.base_weight
        self.num_users = teacher.num_users
        self.register_buffer("_items", items, persistent=False)
        self.register_buffer(
            "_probabilities", top_probabilities(teacher, items, settings.temperature), persistent=False
        )
        self._items: torch.Tensor
        self._probabilities: torch.Tensor

    @classmethod
    def build(
        cls, settings: CrossEntropySettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> CrossEntropy:
        """Smooth the teacher and let it rank the catalogue for every user.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = smooth_teacher(require_teacher(teacher, "ce"), data, settings.alpha)
        return cls(settings, teacher, top_items(teacher, data, settings.num_top))

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """The weighted cross-entropy, less the teacher's entropy, summed over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        target = TopTarget(self._items[users], self._probabilities[users])
        loss = catalogue_divergence(step.embeddings, users, self.num_users, target, self.settings.temperature)
        return self.settings.distillation_weight * loss


def top_items(teacher: Teacher, data: Interactions, num_top: int) -> torch.Tensor:
    """The teacher's top items for every user, training items not masked: int64 of shape (|U|, K)."""
    nothing_masked = data.train[:, :0].copy()
    nothing_masked.resize(data.train.shape)
    everybody = np.arange(data.num_users, dtype=np.int64)
    ranked = rank_items(
        teacher.users, teacher.items, nothing_masked, everybody, min(num_top, data.num_items), progress=True
    )
    return torch.from_numpy(ranked)


def top_probabilities(teacher: Teacher, items: torch.Tensor, temperature: float) -> torch.Tensor:
    """The softmax of the teacher's scores / τ over given items: shape (|U|, K)."""
    chunks = []
    for start in range(0, len(items), CHUNK_USERS):
        rows = slice(start, start + CHUNK_USERS)
        scores = torch.einsum("ud,ukd->uk", teacher.users[rows], teacher.items[items[rows]])
        chunks.append(torch.softmax(scores / temperature, dim=1))
    return torch.cat(chunks)
