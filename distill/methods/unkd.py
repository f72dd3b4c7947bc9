"""UnKD: the teacher's order among items of like popularity, so that its popularity bias is not handed on.

Items are parted into groups of equal shares of the training interactions, most popular first. Every epoch P pairs a
user and group are drawn from what the user has not seen: two different places in the teacher's order of the group,
each with weight exp(−rank / μ), the better-ranked item i⁺ before the other, i⁻. The loss of a user,

    L_u = − 1 / (G P) · Σ_g Σ_(i⁺, i⁻) ln σ(s_i⁺ − s_i⁻),

summed over the batch's users, is the paper's L_G with the mean over pairs that its code takes.

Cost of a step with B users: 12 B G P d_s operations, the reads of `selected_scores`, 16 B G P bytes of item rows;
nothing grows with the catalogue or with d_t. An epoch begins with 2 |U| G P random numbers. Kept: 4 |U| G C bytes.

References:
    Chen, Chen, Feng, Zhou and He, "Unbiased Knowledge Distillation for Recommendation", WSDM 2023, arXiv 2211.14729.
    Groups get equally many pairs, the default of the public code (its exponent λ = 0). The lists are cut to C items,
    1,000 there; an item that nobody has taken is in the last group, and in none there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from distill.backbones.base import Backbone
from distill.backbones.pairwise_loss import bpr_loss
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Step, Teacher, require_not_negative, require_teacher
from distill.methods.candidates import Lists, rank_unseen
from distill.methods.responses import selected_scores

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class UnKDSettings:
    """Settings of UnKD; each changes the result.

    Attributes:
        distillation_weight: Factor of the loss, a sum over the batch's users.
        num_groups: G; fewer where one item has more than its share.
        num_pairs: Pairs a user, shared equally by the groups, rounded up.
        temperature: μ, in ranks.
        num_candidates: C, the length of the teacher's list of a group; give at least 10 μ.
    """

    distillation_weight: float = 0.5
    num_groups: int = 2
    num_pairs: int = 30
    temperature: float = 20.0
    num_candidates: int = 200

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight")
        for name, least in (("num_groups", 1), ("num_pairs", 1), ("num_candidates", 2)):
            if getattr(self, name) < least:
                raise SettingError(f"{name}: {getattr(self, name)} is below {least}")
        if self.temperature <= 0:
            raise SettingError(f"temperature: {self.temperature} is not above 0")


class UnbiasedDistillation(Method):
    """Learns the teacher's order within popularity groups."""

    Settings = UnKDSettings

    def __init__(self, settings: UnKDSettings, ranked: list[Lists], num_unseen: list[Counts]) -> None:
        """Hold the teacher's lists.

        Args:
            settings: Sizes, temperature, weight.
            ranked: Of each group, what the teacher puts first for every user, shape (|U|, at most C).
            num_unseen: Of each group, how long that list is for each user, shape (|U|,); what comes after is seen.
        """
        super().__init__()
        self.settings = settings
        self._ranked = ranked
        self._num_unseen = num_unseen
        self._num_pairs = -(-settings.num_pairs // len(ranked))
        has_pairs = np.repeat(np.stack(num_unseen, axis=1) >= 2, self._num_pairs, axis=1)
        weights = torch.from_numpy(has_pairs).float() / has_pairs.shape[1]
        self.register_buffer("_weights", weights, persistent=False)
        self._weights: torch.Tensor
        self._items = torch.empty(0, dtype=torch.int64)

    @classmethod
    def build(
        cls, settings: UnKDSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> UnbiasedDistillation:
        """Part the items and let the teacher rank every group for every user.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "unkd")
        groups = popularity_groups(data.item_popularity, settings.num_groups)
        ranked, num_unseen = [], []
        for group in groups:
            seen = data.train[:, group]
            local = rank_unseen(
                teacher.users, teacher.items[torch.from_numpy(group)], seen, settings.num_candidates, progress=True
            )
            ranked.append(group[local].astype(np.int32))
            num_unseen.append(np.minimum(len(group) - np.diff(seen.indptr), local.shape[1]).astype(np.int64))
        return cls(settings, ranked, num_unseen)

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Draw the pairs of every user."""
        better, worse = [], []
        for ranked, num_unseen in zip(self._ranked, self._num_unseen, strict=True):
            pairs = draw_pairs(num_unseen, self._num_pairs, self.settings.temperature, rng)
            better.append(np.take_along_axis(ranked, pairs.min(axis=0), axis=1))
            worse.append(np.take_along_axis(ranked, pairs.max(axis=0), axis=1))
        items = np.concatenate(better + worse, axis=1, dtype=np.int64) + len(self._ranked[0])
        self._items = torch.from_numpy(items).to(student.features.device)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        better, worse = selected_scores(step.embeddings, users, self._items[users]).chunk(2, dim=1)
        return self.settings.distillation_weight * (bpr_loss(better, worse) * self._weights[users]).sum()


def popularity_groups(counts: npt.NDArray[np.integer], num_groups: int) -> list[npt.NDArray[np.int64]]:
    """Part items, most popular first, into groups with about equal shares of the interactions.

    Args:
        counts: Training interactions of each item, shape (|I|,).
        num_groups: At most this many groups; an item with more than a group's share leaves others without any.

    Returns:
        Item rows of each group, none empty.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    group = np.minimum(before * num_groups // max(1, int(counts.sum())), num_groups - 1)
    return [order[group == number] for number in np.unique(group)]


def draw_pairs(lengths: Counts, num_pairs: int, temperature: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw pairs of different ranks, each with weight exp(−rank / μ), from lists of given lengths.

    Args:
        lengths: Of every row's list, shape (R,); a row with less than two has pairs of no meaning.
        num_pairs: P.
        temperature: μ.
        rng: Source of randomness.

    Returns:
        Ranks, shape (2, R, P).
    """
    lengths = np.maximum(lengths, 1)[:, None]

    def draw(ends: Counts) -> Counts:
        # The inverse of the distribution function of a geometric distribution cut at the list's end.
        uniform = rng.random((2, *ends.shape))
        ranks = -temperature * np.log1p(uniform * np.expm1(-ends / temperature))
        return np.minimum(ranks.astype(np.int64), ends - 1)

    pairs = draw(np.broadcast_to(lengths, (len(lengths), num_pairs)))
    while (equal := (pairs[0] == pairs[1]) & (lengths > 1)).any():
        ends = np.broadcast_to(lengths, equal.shape)[equal]
        pairs[:, equal] = draw(ends)
    return pairs
