"""DCD: correct what the student ranks too low or too high, seen from the users and from the items (dual correction).

A candidate at rank π_t by the teacher and π_s by the student, among what a row has not seen, is under-estimated by
tanh(max((π_s − π_t) / T, 0)) and over-estimated by tanh(max((π_t − π_s) / T, 0)). Every epoch K under-estimated ones
are drawn from the teacher's first C and K over-estimated ones from the student's first C, without replacement and in
proportion, for each user among items and for each item among users. The former, in the teacher's order, are to come
before the latter: the loss of a row is the `relaxed_ranking_loss` of RRD, and

    L = Σ_u L_u + w Σ_i L_i

over the batch's users and positive items (the paper's L_UCD and L_ICD; its third part, L_RKD, is RRD: `rrd+dcd`).

Cost of a step with B users and B' items: 12 (B + B') K d_s operations, the reads of `selected_scores`, 16 (B + B') K
bytes of rows and 2 (B + B') K exponentials; nothing grows with the catalogue or with d_t. Every `rank_every` epochs the
student ranks all items for all users, and all users for all items (4 |U| |I| d_s operations and the selections: 0.7 s
and 1.9 s for CiteULike on one core). An epoch begins with 2 (|U| + |I|) C random numbers. Kept:
(|U| + |I|) (16 C + 40 T + 16 K) bytes; the lists by the student are part of a checkpoint.

References:
    Lee and Kim, "Dual Correction Strategy for Ranking Distillation in Top-N Recommender System", CIKM 2021, arXiv
    2109.03459. Lists end C + 5 T places down: a candidate that one of them lacks counts as next, where tanh is within
    10⁻⁴ of 1. A public reproduction (KDs) lets the student rank in every epoch, which on a CPU takes longer than the
    epoch, draws over-estimated items from the teacher's list too, and has no item side. As there, a weight is at least
    10⁻⁵, for rows with fewer than K errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import nn

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Step, Teacher, require_not_negative, require_teacher
from distill.methods.candidates import Lists, StudentRanking, find_ranks, gumbel_top_k, rank_unseen
from distill.methods.responses import selected_scores
from distill.methods.rrd import relaxed_ranking_loss

LEAST_WEIGHT = 1e-5
SATURATION = 5.0
"""tanh of it is 1 within 10⁻⁴."""


@dataclass(frozen=True)
class DCDSettings:
    """Settings of DCD; each changes the result.

    Attributes:
        distillation_weight: Factor of the loss, a sum over the batch's users and items.
        item_weight: w, the factor of the item side in it; 0 leaves it out.
        num_corrected: K, under-estimated candidates a row, and as many over-estimated; at most C.
        temperature: T, in ranks.
        num_candidates: C, how far down a list is corrected.
        rank_every: Epochs between rankings by the student.
    """

    distillation_weight: float = 0.1
    item_weight: float = 1.0
    num_corrected: int = 40
    temperature: float = 10.0
    num_candidates: int = 100
    rank_every: int = 10

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight", "item_weight")
        for name in ("num_corrected", "num_candidates", "rank_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name}: {getattr(self, name)} is below 1")
        if self.temperature <= 0:
            raise SettingError(f"temperature: {self.temperature} is not above 0")

    @property
    def list_length(self) -> int:
        """C and as many ranks more as saturate the discrepancy."""
        return self.num_candidates + math.ceil(SATURATION * self.temperature)


class Correction(nn.Module):
    """One side: for every row of a kind, which candidates the student ranks too low, and which too high."""

    def __init__(
        self, settings: DCDSettings, rows: torch.Tensor, candidates: torch.Tensor, seen: sp.csr_matrix
    ) -> None:
        """Let the teacher rank by its features (R, d_t) and (N, d_t); `seen` is CSR of shape (R, N)."""
        super().__init__()
        self._settings = settings
        self._num_candidates = len(candidates)
        self._ranked = rank_unseen(rows, candidates, seen, settings.list_length, progress=True)
        self._ranking = StudentRanking(seen, self._ranked.shape[1], settings.rank_every)
        self._log_weights: list[npt.NDArray[np.float32]] = []

    def draw(self, rows: torch.Tensor, candidates: torch.Tensor, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw for an epoch, by the student's embeddings (R, d_s) and (N, d_s).

        Returns:
            Candidates of every row, the under-estimated first, in the teacher's order: shape (R, 2 K).
        """
        new = self._ranking.begin_epoch(rows, candidates)
        both = (self._ranked, self._ranking.lists)
        if new or not self._log_weights:
            self._log_weights = [self._discrepancy(*both), self._discrepancy(*both[::-1])]
        num_draws = min(self._settings.num_corrected, self._log_weights[0].shape[1])
        drawn = [
            np.take_along_axis(lists, gumbel_top_k(log_weights, len(lists), num_draws, rng), axis=1)
            for lists, log_weights in zip(both, self._log_weights, strict=True)
        ]
        return np.concatenate(drawn, axis=1, dtype=np.int64)

    def _discrepancy(self, lists: Lists, others: Lists) -> npt.NDArray[np.float32]:
        """How far down in the others the first C of lists stand, as ln of the weight of a draw: shape (R, C)."""
        first = lists[:, : self._settings.num_candidates]
        further = find_ranks(others, first, self._num_candidates) - np.arange(first.shape[1], dtype=np.float32)
        return np.log(np.maximum(np.tanh(further / np.float32(self._settings.temperature)), np.float32(LEAST_WEIGHT)))


class DualCorrection(Method):
    """Learns what it got wrong."""

    Settings = DCDSettings

    def __init__(self, settings: DCDSettings, users: Correction, items: Correction | None) -> None:
        """Hold both sides: items for users, and users for items or None."""
        super().__init__()
        self.settings = settings
        self._user_side = users
        self._item_side = items
        self._items_of_users = self._users_of_items = torch.empty(0, dtype=torch.int64)

    @classmethod
    def build(
        cls, settings: DCDSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> DualCorrection:
        """Let the teacher rank the items for every user, and the users for every item.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "dcd")
        users = Correction(settings, teacher.users, teacher.items, data.train)
        if settings.item_weight == 0:
            return cls(settings, users, None)
        return cls(settings, users, Correction(settings, teacher.items, teacher.users, data.train.T.tocsr()))

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Let the student rank if it is time, and draw for every row."""
        users, items = student.final_embeddings()
        drawn = self._user_side.draw(users, items, rng)
        self._items_of_users = torch.from_numpy(drawn + len(users)).to(users.device)
        if self._item_side is not None:
            self._users_of_items = torch.from_numpy(self._item_side.draw(items, users, rng)).to(users.device)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over the batch's users and positive items: a scalar."""
        users = torch.unique(step.batch.users)
        loss = self._loss(step.embeddings, users, self._items_of_users[users])
        if self._item_side is not None:
            items = torch.unique(step.batch.positives)
            owners = items + len(self._items_of_users)
            loss = loss + self.settings.item_weight * self._loss(step.embeddings, owners, self._users_of_items[items])
        return self.settings.distillation_weight * loss

    @staticmethod
    def _loss(embeddings: torch.Tensor, owners: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return relaxed_ranking_loss(selected_scores(embeddings, owners, others), others.shape[1] // 2).sum()
