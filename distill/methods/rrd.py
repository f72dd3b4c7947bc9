"""RRD: what the teacher puts first is to come in its order, and before everything else (relaxed ranking distillation).

Every epoch K interesting items a user are drawn without replacement from the teacher's list, with weights
exp(−rank / T), and L uninteresting ones uniformly from the rest. With π the interesting ones in the teacher's order,
Z the uninteresting ones and s the student's scores, the loss of a user is that of a Plackett–Luce model which does not
order Z,

    L_u = − Σ_k ln( exp(s_πk) / ( Σ_{j ≥ k} exp(s_πj) + Σ_{z ∈ Z} exp(s_z) ) ),

summed over the batch's users (DE-RRD, section 4.2, the list-wise relaxed likelihood).

Cost of a step with B users: 6 B (K + L) d_s operations and as many reads as `selected_scores` says, 8 B (K + L) bytes
of item rows, B (K + L) exponentials; nothing grows with the catalogue or with d_t. An epoch begins with |U| (C + L)
random numbers. Kept: 4 |U| C bytes of the teacher's lists and twice as much to draw the rest.

References:
    Kang, Hwang, Kweon and Yu, "DE-RRD: A Knowledge Distillation Framework for Recommender System", CIKM 2020. The
    lists are cut to C items, as in the public code. Uninteresting items are drawn with replacement, without it there;
    scores are shifted by their maximum, clamped at 80 there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Step, Teacher, require_not_negative, require_teacher
from distill.methods.candidates import Lists, UniformNegatives, gumbel_top_k, rank_unseen
from distill.methods.responses import selected_scores


@dataclass(frozen=True)
class RRDSettings:
    """Settings of RRD; each changes the result.

    Attributes:
        distillation_weight: Factor of the loss, a sum over the batch's users.
        num_interesting: K; at most the list.
        num_uninteresting: L.
        temperature: T, in ranks; a small one takes the first K always.
        num_candidates: C, the length of the teacher's list, at most half the catalogue; give at least K + 10 T.
    """

    distillation_weight: float = 0.1
    num_interesting: int = 40
    num_uninteresting: int = 40
    temperature: float = 10.0
    num_candidates: int = 200

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight")
        for name in ("num_interesting", "num_uninteresting", "num_candidates"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name}: {getattr(self, name)} is below 1")
        if self.temperature <= 0:
            raise SettingError(f"temperature: {self.temperature} is not above 0")


class RelaxedRankingDistillation(Method):
    """Learns the order of what the teacher puts first."""

    Settings = RRDSettings

    def __init__(self, settings: RRDSettings, ranked: Lists, negatives: UniformNegatives) -> None:
        """Hold the teacher's lists.

        Args:
            settings: Sizes, temperature, weight.
            ranked: What the teacher puts first for every user, shape (|U|, C).
            negatives: Of everything else.
        """
        super().__init__()
        self.settings = settings
        self._ranked = ranked
        self._negatives = negatives
        self._num_interesting = min(settings.num_interesting, ranked.shape[1])
        self._log_weights = -np.arange(ranked.shape[1], dtype=np.float32)[None] / settings.temperature
        self._items = torch.empty(0, dtype=torch.int64)

    @classmethod
    def build(
        cls, settings: RRDSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> RelaxedRankingDistillation:
        """Let the teacher rank what each user has not seen.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "rrd")
        length = min(settings.num_candidates, max(1, data.num_items // 2))
        ranked = rank_unseen(teacher.users, teacher.items, data.train, length, progress=True)
        return cls(settings, ranked, UniformNegatives(data.train, ranked))

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Draw the items of every user."""
        drawn = gumbel_top_k(self._log_weights, len(self._ranked), self._num_interesting, rng)
        interesting = np.take_along_axis(self._ranked, drawn, axis=1)
        items = np.concatenate([interesting, self._negatives.draw(self.settings.num_uninteresting, rng)], axis=1)
        self._items = torch.from_numpy(items + len(self._ranked)).to(student.features.device)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        scores = selected_scores(step.embeddings, users, self._items[users])
        losses = relaxed_ranking_loss(scores, self._num_interesting)
        return self.settings.distillation_weight * losses.sum()


def relaxed_ranking_loss(scores: torch.Tensor, num_ranked: int) -> torch.Tensor:
    """Compute −ln of the likelihood that the first K come in their order and before the rest (DE-RRD, section 4.2).

    A denominator more than 87 below a row's highest score counts as 87 below it.

    Args:
        scores: Shape (B, K + L), the ranked ones first, best first.
        num_ranked: K.

    Returns:
        Shape (B,).
    """
    highest = scores.detach().amax(dim=1, keepdim=True)
    shifted = scores - highest
    likelihoods = shifted.exp()
    below = likelihoods[:, :num_ranked].flip(1).cumsum(1) + likelihoods[:, num_ranked:].sum(dim=1, keepdim=True)
    return below.clamp_min(torch.finfo(below.dtype).tiny).log().sum(dim=1) - shifted[:, :num_ranked].sum(dim=1)
