"""RCE-KD: cross-entropy to the teacher over items that include the student's own first (rejuvenated cross-entropy).

On a set of items the cross-entropy bounds NDCG only if the set is closed: with an item it must hold all that the
student puts before it (theorem 4.4). So the teacher's first K items, Q^T, are split by the student's first K, Q^S.
Those in both are learned on Q^S, which is closed; the others, Q2 = Q^T − Q^S, on Q2 ∪ A, where A is L items drawn from
the student's first C, without replacement, with weights exp(z / T), z the number of items of Q2 that the student puts
behind. With D(S) = Σ_{j ∈ S} q_j (ln q_j − ln p_j), q and p the softmax of the teacher's and the student's scores / τ
over S (the cross-entropy less the teacher's entropy, so that 0 is perfect), the loss of a user is

    L_u = (1 − γ) D(Q^S) + γ D(Q2 ∪ A),    γ = exp(−β |Q^T ∩ Q^S| / K),

summed over the batch's users.

Cost of a step with B users: 6 B (2 K + L) d_s operations, the reads of `selected_scores`, 8 B (2 K + L) bytes of item
rows and 4 B (2 K + L) of the teacher's probabilities; nothing grows with the catalogue or with d_t. Every `rank_every`
epochs the student ranks the catalogue for all users (2 |U| |I| d_s operations and the selection of C) and the teacher
scores the C it finds (2 |U| C d_t): 1.1 s for CiteULike on one core, C = 200, d_t = 400. Kept:
12 |U| (2 K + L) + 12 |U| C bytes; the lists by the student are part of a checkpoint.

References:
    Zhu and Zhang, "Rejuvenating Cross-Entropy Loss in Knowledge Distillation for Recommender Systems", ICLR 2026,
    arXiv 2509.20989. The paper and its code let the student rank in every epoch, which on a CPU takes longer than the
    epoch. The code counts all of Q^T in z, and takes the overlap with A for γ; here both are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Step, Teacher, require_not_negative, require_teacher
from distill.methods.candidates import Lists, StudentRanking, find_ranks, gumbel_top_k
from distill.methods.responses import hidden_items, scale_temperature, selected_scores


@dataclass(frozen=True)
class RCEKDSettings:
    """Settings of RCE-KD; each changes the result.

    Attributes:
        distillation_weight: Factor of the loss, a sum over the batch's users.
        temperature: τ of teacher and student, in units of the backbone's `score_temperature`.
        num_top: K, the length of Q^T and Q^S.
        num_sampled: L, the size of A; at most C.
        num_candidates: C, the length of the student's list that A is drawn from; at least K.
        sampling_temperature: T.
        overlap_decay: β.
        rank_every: Epochs between rankings by the student.
        hide_train: Leave a user's training items out of all lists; the paper's code keeps them.
    """

    distillation_weight: float = 100.0
    temperature: float = 1.0
    num_top: int = 50
    num_sampled: int = 50
    num_candidates: int = 200
    sampling_temperature: float = 10.0
    overlap_decay: float = 3.0
    rank_every: int = 10
    hide_train: bool = False

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight", "overlap_decay")
        for name in ("num_top", "num_sampled", "num_candidates", "rank_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name}: {getattr(self, name)} is below 1")
        for name in ("temperature", "sampling_temperature"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name}: {getattr(self, name)} is not above 0")
        if self.num_candidates < self.num_top:
            raise SettingError(f"num_candidates: {self.num_candidates} is below num_top ({self.num_top})")


@dataclass(frozen=True)
class Comparison:
    """The student's lists against the teacher's.

    Attributes:
        scores: The teacher's, of what the student lists, shape (|U|, C).
        positions: Of the teacher's items in the student's list, C where they are not listed, shape (|U|, K).
        missed: Which of them are not among the student's first K, shape (|U|, K).
        log_weights: z / T of what the student lists, shape (|U|, C).
    """

    scores: npt.NDArray[np.float32]
    positions: Lists
    missed: npt.NDArray[np.bool_]
    log_weights: npt.NDArray[np.float32]


class RejuvenatedCrossEntropy(Method):
    """Learns the teacher's distribution where the student's own list closes the set."""

    Settings = RCEKDSettings
    learns_lists = True

    def __init__(self, settings: RCEKDSettings, teacher: Teacher, hidden: sp.csr_matrix) -> None:
        """Let the teacher rank the catalogue for every user; `hidden`, CSR of shape (|U|, |I|), is in nobody's list."""
        super().__init__()
        self.settings = settings
        self.num_users, num_items = hidden.shape
        self._preferences = teacher.preferences(hidden)
        self._ranked = self._preferences.top(settings.num_top)
        self._ranking = StudentRanking(hidden, min(settings.num_candidates, num_items), settings.rank_every)
        self._comparison: Comparison | None = None
        self._scores = self._preferences.score(self._ranked, teacher.features.device).numpy()
        self._items = torch.empty(0, dtype=torch.int64)
        self._absent = self._probabilities = self._mixing = torch.empty(0)

    @classmethod
    def build(
        cls, settings: RCEKDSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> RejuvenatedCrossEntropy:
        """Let the teacher rank.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "rcekd", features=False)
        return cls(scale_temperature(settings, student), teacher, hidden_items(data, hide_train=settings.hide_train))

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Let the student rank if it is time, and draw A for every user."""
        users, items = student.final_embeddings()
        if self._ranking.begin_epoch(users, items) or self._comparison is None:
            self._comparison = self._compare(self._ranking.lists, len(items), users.device)
        self._draw(self._ranking.lists, self._comparison, rng, users.device)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        logits = selected_scores(step.embeddings, users, self._items[users]) / self.settings.temperature
        num_top, probabilities, mixing = self._ranked.shape[1], self._probabilities[users], self._mixing[users]
        top = _divergence(logits[:, :num_top], probabilities[:, :num_top])
        closure = _divergence(logits[:, num_top:], probabilities[:, num_top:], self._absent[users])
        return self.settings.distillation_weight * ((1 - mixing) * top + mixing * closure).sum()

    def _compare(self, lists: Lists, num_items: int, device: torch.device) -> Comparison:
        num_top, length = self._ranked.shape[1], lists.shape[1]
        positions = find_ranks(lists, self._ranked, num_items)
        missed = positions >= num_top
        behind = np.zeros((self.num_users, length + 1), dtype=np.float32)
        np.put_along_axis(behind, positions, missed, axis=1)
        # What is not listed is behind everything: it changes no proportion.
        behind[:, length] = 0
        counts = behind[:, :0:-1].cumsum(axis=1)[:, ::-1]
        log_weights = (counts / self.settings.sampling_temperature).astype(np.float32)
        return Comparison(self._preferences.score(lists, device).cpu().numpy(), positions, missed, log_weights)

    def _draw(self, lists: Lists, comparison: Comparison, rng: np.random.Generator, device: torch.device) -> None:
        num_top, length = self._ranked.shape[1], lists.shape[1]
        drawn = gumbel_top_k(comparison.log_weights, len(lists), min(self.settings.num_sampled, length), rng)
        is_drawn = np.zeros((len(lists), length + 1), dtype=np.bool_)
        np.put_along_axis(is_drawn, drawn, True, axis=1)
        wanted = comparison.missed & ~np.take_along_axis(is_drawn, comparison.positions, axis=1)
        sampled = np.take_along_axis(lists, drawn, axis=1)
        scores = np.concatenate([np.take_along_axis(comparison.scores, drawn, axis=1), self._scores], axis=1)
        absent = np.concatenate([np.zeros_like(sampled, dtype=np.bool_), ~wanted], axis=1)
        items = np.concatenate([lists[:, :num_top], sampled, self._ranked], axis=1, dtype=np.int64)
        overlap = 1 - comparison.missed.mean(axis=1, dtype=np.float32)
        probabilities = [
            torch.softmax(torch.from_numpy(part / self.settings.temperature), dim=1)
            for part in (comparison.scores[:, :num_top], np.where(absent, -np.inf, scores))
        ]
        self._items = torch.from_numpy(items + self.num_users).to(device)
        self._absent = torch.from_numpy(absent).to(device)
        self._probabilities = torch.cat(probabilities, dim=1).to(device)
        self._mixing = torch.from_numpy(np.exp(-self.settings.overlap_decay * overlap)).to(device)


def _divergence(logits: torch.Tensor, probabilities: torch.Tensor, absent: torch.Tensor | None = None) -> torch.Tensor:
    """Σ_j q_j (ln q_j − ln softmax(logits)_j) of each row, over what is not absent: shape (B,)."""
    if absent is None:
        logs = torch.log_softmax(logits, dim=1)
    else:
        logs = torch.log_softmax(logits.masked_fill(absent, -torch.inf), dim=1).masked_fill(absent, 0.0)
    entropies: torch.Tensor = torch.special.entr(probabilities)
    return -(entropies + probabilities * logs).sum(dim=1)
