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
12 |U| (2 K + L) + 12 |U| C bytes; the lists by the student are part of a checkpoint. Beyond `WHOLE_PAIRS` a share of
the users is ranked in each epoch, through inverted lists, and what is compared and drawn is so for a batch: 4 |U| C
bytes are kept, and the teacher's lists are files that are mapped (`distill.methods.stored_lists`).

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
from distill.methods.base import Method, Preferences, Step, Teacher, require_not_negative, require_teacher
from distill.methods.candidates import Lists, StudentRanking, find_ranks, gumbel_top_k, is_whole
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
        in_turns: Rank a share of the users in each epoch, each as often, and compare and draw batch by batch; else all
            at once. None takes that where `is_whole`.
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
    in_turns: bool | None = None

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


@dataclass(frozen=True)
class Drawn:
    """What users learn on: Q^S, then A and what of Q^T is in neither.

    Attributes:
        items: Rows of the student's table, int64 of shape (B, 2 K + L).
        absent: Of A and Q^T, what does not count, shape (B, K + L).
        probabilities: The teacher's on both sets, shape (B, 2 K + L).
        mixing: γ, shape (B,).
        num_top: K.
    """

    items: torch.Tensor
    absent: torch.Tensor
    probabilities: torch.Tensor
    mixing: torch.Tensor
    num_top: int

    def of(self, users: torch.Tensor) -> Drawn:
        """Take rows."""
        return Drawn(self.items[users], self.absent[users], self.probabilities[users], self.mixing[users], self.num_top)

    def to(self, device: torch.device) -> Drawn:
        """Move to a device."""
        items, absent, probabilities = (part.to(device) for part in (self.items, self.absent, self.probabilities))
        return Drawn(items, absent, probabilities, self.mixing.to(device), self.num_top)


class RejuvenatedCrossEntropy(Method):
    """Learns the teacher's distribution where the student's own list closes the set."""

    Settings = RCEKDSettings
    learns_lists = True

    def __init__(self, settings: RCEKDSettings, teacher: Teacher, hidden: sp.csr_matrix) -> None:
        """Let the teacher rank the catalogue for every user; `hidden`, CSR of shape (|U|, |I|), is in nobody's list."""
        super().__init__()
        self.settings = settings
        self.hidden = hidden
        self.num_users, num_items = hidden.shape
        self._preferences = teacher.preferences(hidden)
        in_turns = not is_whole(*hidden.shape) if settings.in_turns is None else settings.in_turns
        length = min(settings.num_candidates, num_items)
        first = self._preferences.top(length) if in_turns else None
        self._by_batch = self._preferences.listed(min(settings.num_top, num_items)) if in_turns else None
        self.ranking = StudentRanking(hidden, length, settings.rank_every, first)
        self._comparison: Comparison | None = None
        self._drawn: Drawn | None = None
        if in_turns:
            return
        self._ranked = self._preferences.top(settings.num_top)
        self._scores = self._preferences.score(self._ranked, teacher.features.device).numpy()

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
        """Let the student rank if it is time, and draw A for every user, unless that is done batch by batch."""
        users, items = student.final_embeddings()
        is_new = self.ranking.begin_epoch(users, items)
        if self._by_batch is not None:
            return
        if is_new or self._comparison is None:
            lists = self.ranking.lists
            self._comparison = self._compare(lists, self._ranked, self._preferences, len(items))
        self._drawn = self._draw(self.ranking.lists, self._comparison, (self._ranked, self._scores), rng)
        self._drawn = self._drawn.to(users.device)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        drawn = self._draw_batch(users, step.generator) if self._drawn is None else self._drawn.of(users)
        logits = selected_scores(step.embeddings, users, drawn.items) / self.settings.temperature
        num_top = drawn.num_top
        top = _divergence(logits[:, :num_top], drawn.probabilities[:, :num_top])
        closure = _divergence(logits[:, num_top:], drawn.probabilities[:, num_top:], drawn.absent)
        return self.settings.distillation_weight * ((1 - drawn.mixing) * top + drawn.mixing * closure).sum()

    def _draw_batch(self, users: torch.Tensor, generator: torch.Generator) -> Drawn:
        """Compare and draw for users (B,) alone: nothing of all users is kept but the lists."""
        if self._by_batch is None:
            raise RuntimeError("begin_epoch has not been called")
        rows = users.cpu().numpy()
        lists = self.ranking.of(users).cpu().numpy()
        top = self._by_batch.of(rows)
        comparison = self._compare(lists, top.items, self._preferences.of(rows), self.hidden.shape[1])
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        return self._draw(lists, comparison, (top.items, top.scores), np.random.default_rng(seed)).to(users.device)

    def _compare(self, lists: Lists, ranked: Lists, preferences: Preferences, num_items: int) -> Comparison:
        num_top, length = ranked.shape[1], lists.shape[1]
        positions = find_ranks(lists, ranked, num_items)
        missed = positions >= num_top
        behind = np.zeros((len(lists), length + 1), dtype=np.float32)
        np.put_along_axis(behind, positions, missed, axis=1)
        # What is not listed is behind everything: it changes no proportion.
        behind[:, length] = 0
        counts = behind[:, :0:-1].cumsum(axis=1)[:, ::-1]
        log_weights = (counts / self.settings.sampling_temperature).astype(np.float32)
        scores = preferences.score(lists, torch.device("cpu")).numpy()
        return Comparison(scores, positions, missed, log_weights)

    def _draw(
        self,
        lists: Lists,
        comparison: Comparison,
        top: tuple[Lists, npt.NDArray[np.float32]],
        rng: np.random.Generator,
    ) -> Drawn:
        ranked, ranked_scores = top
        num_top, length = ranked.shape[1], lists.shape[1]
        drawn = gumbel_top_k(comparison.log_weights, len(lists), min(self.settings.num_sampled, length), rng)
        is_drawn = np.zeros((len(lists), length + 1), dtype=np.bool_)
        np.put_along_axis(is_drawn, drawn, True, axis=1)
        wanted = comparison.missed & ~np.take_along_axis(is_drawn, comparison.positions, axis=1)
        sampled = np.take_along_axis(lists, drawn, axis=1)
        scores = np.concatenate([np.take_along_axis(comparison.scores, drawn, axis=1), ranked_scores], axis=1)
        absent = np.concatenate([np.zeros_like(sampled, dtype=np.bool_), ~wanted], axis=1)
        items = np.concatenate([lists[:, :num_top], sampled, ranked], axis=1, dtype=np.int64)
        overlap = 1 - comparison.missed.mean(axis=1, dtype=np.float32)
        probabilities = [
            torch.softmax(torch.from_numpy(part / self.settings.temperature), dim=1)
            for part in (comparison.scores[:, :num_top], np.where(absent, -np.inf, scores))
        ]
        return Drawn(
            torch.from_numpy(items + self.num_users),
            torch.from_numpy(absent),
            torch.cat(probabilities, dim=1),
            torch.from_numpy(np.exp(-self.settings.overlap_decay * overlap)),
            num_top,
        )


def _divergence(logits: torch.Tensor, probabilities: torch.Tensor, absent: torch.Tensor | None = None) -> torch.Tensor:
    """Σ_j q_j (ln q_j − ln softmax(logits)_j) of each row, over what is not absent: shape (B,)."""
    if absent is None:
        logs = torch.log_softmax(logits, dim=1)
    else:
        logs = torch.log_softmax(logits.masked_fill(absent, -torch.inf), dim=1).masked_fill(absent, 0.0)
    entropies: torch.Tensor = torch.special.entr(probabilities)
    return -(entropies + probabilities * logs).sum(dim=1)
