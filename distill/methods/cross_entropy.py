"""Cross-entropy to the teacher's top-K: the student's softmax over the whole catalogue is to put its mass there.

It is the full softmax with a target cut to the teacher's head ("full-CE" of RCE-KD with a cut target), and not that
paper's "vanilla" cross-entropy, which normalises the student over the K items alone and so leaves open what the other
items score. The teacher ranks once, before training; a step reads K items and probabilities a user, whatever d_t is.
Cost of a step with B users: that of `catalogue_divergence`, 6 B |I| d_s operations and B |I| exponentials.

References:
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, 2015, with the teacher's
    distribution cut to its head.
    Zhu and Zhang, "Rejuvenating Cross-Entropy Loss in Knowledge Distillation for Recommender Systems", ICLR 2026, arXiv
    2509.20989, for the names. In their figures 1 and 3 full-CE is about level with RCE-KD, vanilla the worst.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Step, Teacher, require_teacher
from distill.methods.responses import (
    HIDDEN_SCORE,
    TRAINING_DEFAULTS,
    ItemSets,
    ResponseSettings,
    TopTarget,
    catalogue_divergence,
    hidden_items,
    scale_temperature,
    smooth_teacher,
)


@dataclass(frozen=True)
class CrossEntropySettings(ResponseSettings):
    """Settings beside those of `ResponseSettings`.

    Attributes:
        num_top: K, the teacher's items that count a user; at most the catalogue.
        hide_train: Leave a user's training items out of both distributions: what is learned is then the order of
            what can be recommended.
    """

    num_top: int = 100
    hide_train: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_top < 1:
            raise SettingError(f"num_top: {self.num_top} is below 1")


class CrossEntropy(Method):
    """Learns what the teacher puts first."""

    Settings = CrossEntropySettings
    learns_lists = True
    batches = "users"
    training_defaults = TRAINING_DEFAULTS

    def __init__(self, settings: CrossEntropySettings, teacher: Teacher, hidden: sp.csr_matrix) -> None:
        """Let the teacher, smoothed already, rank the catalogue for every user, and keep its distribution over the top.

        `hidden`, CSR of shape (|U|, |I|), is left out of both distributions.
        """
        super().__init__()
        self.settings = settings
        self.base_weight = settings.base_weight
        self.num_users = teacher.num_users
        items, probabilities = top_distribution(teacher, hidden, settings.num_top, settings.temperature)
        self._hides = hidden.nnz > 0
        for name, values in (("_indptr", hidden.indptr), ("_hidden", hidden.indices)):
            self.register_buffer(name, torch.from_numpy(values.astype(np.int64)), persistent=False)
        self.register_buffer("_items", items, persistent=False)
        self.register_buffer("_probabilities", probabilities, persistent=False)
        self._indptr: torch.Tensor
        self._hidden: torch.Tensor
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
        hidden = hidden_items(data, hide_train=settings.hide_train)
        smoothed = smooth_teacher(require_teacher(teacher, "ce", features=False), data, settings.alpha)
        return cls(scale_temperature(settings, student), smoothed, hidden)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted cross-entropy, less the teacher's entropy, over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        hidden = ItemSets(self._indptr, self._hidden, users) if self._hides else None
        target = TopTarget(self._items[users], self._probabilities[users], hidden)
        loss = catalogue_divergence(step.embeddings, users, self.num_users, target, self.settings.temperature)
        return self.settings.distillation_weight * loss


def top_distribution(
    teacher: Teacher, hidden: sp.csr_matrix, num_top: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rank the catalogue by the teacher for every user, and take the softmax of its scores / τ over the top.

    Args:
        teacher: Whose scores.
        hidden: Items left out, CSR of shape (|U|, |I|); where fewer than K are left, they fill up with probability 0.
        num_top: K, or the catalogue if that is smaller.
        temperature: τ.

    Returns:
        Item rows, best first, int64, and probabilities: each of shape (|U|, K).
    """
    preferences = teacher.preferences(hidden)
    items = preferences.top(num_top)
    left = torch.from_numpy(hidden.shape[1] - np.diff(hidden.indptr))
    scores = preferences.score(items, teacher.features.device) / temperature
    scores[torch.arange(items.shape[1]) >= left[:, None]] = HIDDEN_SCORE
    return torch.from_numpy(items).long(), torch.softmax(scores, dim=1)
