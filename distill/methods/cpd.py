"""CPD and PCKD: keep the student's own ranking through the projector, an add-on to any method with one.

A feature loss makes projected features like the teacher's, but features are served unprojected: a projector that
reorders items takes the preference it was taught away again. For each user u of the batch and Q items drawn from the
teacher's top (high ranks first), with s the student's scores and s′ the inner products of its projected features,

    list:  κ Σ_u KL( softmax(s_u / τ) ‖ softmax(s′_u / τ) )        pair:  κ Σ_u −ln σ( (s′_u1 − s′_u2)(s_u1 − s_u2) )

is added to the distillation loss. The student's rows are held fixed in it: only projectors learn from it.

Cost of a step with B users: projecting them and at most B Q items once, forward and backward, then 4 B Q d_t
operations and as many bytes. Linear projectors V and W are never applied: s′ = (a_uᵀ Vᵀ W) a_i, at width d_s. The
teacher ranks the catalogue once, before training; the Q items of all users are drawn once an epoch.

Where this is not the public code: a user counts once in a batch, not once an interaction; the list loss is the
cross-entropy less its constant part, so that 0 is perfect.

References:
    Zhu and Zhang, "Preference-Consistent Knowledge Distillation for Recommender System", TKDE 37(4), 2025
    (arXiv 2311.04549); class CPD of github.com/woriazzc/KDs, whose constants and defaults these are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Step, Teacher, require_not_negative
from distill.methods.candidates import gumbel_top_k, rank_unseen
from distill.methods.responses import selected_scores

Preference = Literal["list", "pair"]
ProjectPair = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(features, user entities, item entities) → rows (B, d) and (M, d) whose inner products are the projected scores."""

NUM_TOP = 100
RANK_SCALE = 10.0
"""The teacher's item of rank r is drawn with a weight of exp(−r / RANK_SCALE)."""


@dataclass(frozen=True)
class PreferenceSettings:
    """Settings of every method that projects the student into the teacher's space; each changes the result.

    Attributes:
        distillation_weight: Factor of the whole distillation loss, this add-on included.
        preference_weight: κ; 0 leaves the projectors free.
        preference: "list" (CPD) or "pair" (PCKD).
        preference_items: Q of "list", at most 100; "pair" compares two.
        preference_temperature: τ of "list".
    """

    distillation_weight: float = 0.5
    preference_weight: float = 0.0
    preference: Preference = "list"
    preference_items: int = 5
    preference_temperature: float = 0.1

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight", "preference_weight")
        if not 2 <= self.preference_items <= NUM_TOP:
            raise SettingError(f"preference_items: {self.preference_items} is outside [2, {NUM_TOP}]")
        if self.preference_temperature <= 0:
            raise SettingError(f"preference_temperature: {self.preference_temperature} is not above 0")

    @property
    def num_compared(self) -> int:
        """Items of a user that are compared in an epoch."""
        return self.preference_items if self.preference == "list" else 2


class PreferenceConsistency(nn.Module):
    """The regulariser; it has no parameters of its own."""

    def __init__(self, settings: PreferenceSettings, items: torch.Tensor) -> None:
        """Hold what the teacher puts first.

        Args:
            settings: κ, kind, Q, τ.
            items: The teacher's top items a user, best first, int64 of shape (|U|, K).
        """
        super().__init__()
        self.settings = settings
        self._items: torch.Tensor
        self._drawn: torch.Tensor
        self.register_buffer("_items", items, persistent=False)
        self.register_buffer("_drawn", items[:, : settings.num_compared], persistent=False)

    @classmethod
    def build(cls, settings: PreferenceSettings, data: Interactions, teacher: Teacher) -> PreferenceConsistency | None:
        """Let the teacher rank the catalogue; None where κ is 0."""
        if settings.preference_weight == 0:
            return None
        nothing = sp.csr_matrix(data.train.shape, dtype=np.float32)
        ranked = rank_unseen(teacher.users, teacher.items, nothing, NUM_TOP, progress=True)
        return cls(settings, torch.from_numpy(ranked).long())

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Draw the items that each user compares in this epoch."""
        num_users, num_top = self._items.shape
        log_weights = -np.arange(num_top, dtype=np.float32)[None] / RANK_SCALE
        positions = gumbel_top_k(log_weights, num_users, self._drawn.shape[1], rng)
        self._drawn = self._items.gather(1, torch.from_numpy(positions).to(self._items.device))

    def loss(self, step: Step, project: ProjectPair) -> torch.Tensor:
        """Compute κ times the regulariser over the batch's users: a scalar that only the projectors' gradients see.

        Args:
            step: Batch, features, randomness.
            project: The method's projectors.
        """
        users, num_users = torch.unique(step.batch.users), len(self._items)
        items, places = torch.unique(self._drawn[users], return_inverse=True)
        entities = num_users + items
        features = step.features.detach()
        own = _scores(features[users], features[entities], places)
        projected = _scores(*project(features, users, entities), places)
        compare = _list_loss if self.settings.preference == "list" else _pair_loss
        return self.settings.preference_weight * compare(projected, own, self.settings.preference_temperature)


def _scores(users: torch.Tensor, items: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Inner products of user rows (B, d) with the item rows (M, d) at `places` (B, Q): shape (B, Q)."""
    return selected_scores(
        torch.cat([users, items]), torch.arange(len(users), device=users.device), len(users) + places
    )


def _list_loss(projected: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """Σ_u KL(softmax(s / τ) ‖ softmax(s′ / τ)) of scores (B, Q)."""
    logs, target = (torch.log_softmax(scores / temperature, dim=1) for scores in (projected, own))
    return F.kl_div(logs, target, reduction="sum", log_target=True)


def _pair_loss(projected: torch.Tensor, own: torch.Tensor, _: float) -> torch.Tensor:
    """Σ_u −ln σ(Δs′ Δs) of the scores of two items, (B, 2)."""
    return F.softplus(-(projected[:, 0] - projected[:, 1]) * (own[:, 0] - own[:, 1])).sum()
