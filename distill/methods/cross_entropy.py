"""Cross-entropy to the teacher's top-K: the student's softmax over the whole catalogue is to put its mass there.

It is the full softmax with a target cut to the teacher's head ("full-CE" of RCE-KD with a cut target), and not that
paper's "vanilla" cross-entropy, which normalises the student over the K items alone and so leaves open what the other
items score. The teacher ranks once, before training; a step reads K items and probabilities a user, whatever d_t is.
Cost of a step with B users: that of `catalogue_divergence`, 6 B |I| d_s operations and B |I| exponentials; of a large
catalogue that of `sampled_divergence`, in which the normaliser is estimated from a sample, the teacher's items and what
the student itself puts first being summed exactly.

References:
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, 2015, with the teacher's
    distribution cut to its head.
    Zhu and Zhang, "Rejuvenating Cross-Entropy Loss in Knowledge Distillation for Recommender Systems", ICLR 2026, arXiv
    2509.20989, for the names. In their figures 1 and 3 full-CE is about level with RCE-KD, vanilla the worst.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import nn

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Preferences, Step, Teacher, require_not_negative, require_teacher
from distill.methods.candidates import StudentRanking, is_whole
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
from distill.methods.sampled_softmax import ExactItems, ItemSampler, Sample, sampled_divergence

NUM_NEGATIVES = 4096
"""Where a catalogue is sampled: a step then costs half of what it does beside the loss."""


@dataclass(frozen=True)
class CrossEntropySettings(ResponseSettings):
    """Settings beside those of `ResponseSettings`.

    Attributes:
        num_top: K, the teacher's items that count a user; at most the catalogue.
        hide_train: Leave a user's training items out of both distributions: what is learned is then the order of
            what can be recommended.
        num_negatives: Items of a sample that stands for the rest of the catalogue; 0 scores the whole of it. None takes
            0 where `is_whole`, else `NUM_NEGATIVES`.
        num_hard: Items beside a sample that the student puts first.
        rank_every: Epochs between rankings by the student.
    """

    num_top: int = 100
    hide_train: bool = True
    num_negatives: int | None = None
    num_hard: int = 100
    rank_every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_top < 1:
            raise SettingError(f"num_top: {self.num_top} is below 1")
        if self.rank_every < 1:
            raise SettingError(f"rank_every: {self.rank_every} is below 1")
        require_not_negative(self, "num_hard")
        if self.num_negatives is not None and self.num_negatives < 0:
            raise SettingError(f"num_negatives: {self.num_negatives} is negative; give 0 for the whole catalogue")


class CrossEntropy(Method):
    """Learns what the teacher puts first."""

    Settings = CrossEntropySettings
    learns_lists = True
    batches = "users"
    training_defaults = TRAINING_DEFAULTS

    def __init__(
        self,
        settings: CrossEntropySettings,
        teacher: Teacher,
        hidden: sp.csr_matrix,
        popularity: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Let the teacher, smoothed already, rank the catalogue for every user, and keep its distribution over the top.

        Args:
            settings: With τ in units of the student's scores.
            teacher: Smoothed already.
            hidden: Items that are left out of both distributions, CSR of shape (|U|, |I|).
            popularity: How often each item was taken, shape (|I|,), where the catalogue may be sampled.
        """
        super().__init__()
        self.settings = settings
        self.base_weight = settings.base_weight
        self.num_users = teacher.num_users
        self._sampled: SampledCatalogue | None = None
        wanted = settings.num_negatives
        if wanted is None:
            wanted = 0 if is_whole(*hidden.shape) else NUM_NEGATIVES
        if wanted:
            if popularity is None:
                popularity = np.ones(hidden.shape[1], dtype=np.int64)
            self._sampled = SampledCatalogue(settings, teacher.preferences(hidden), hidden, popularity, wanted)
            return
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
        return cls(scale_temperature(settings, student), smoothed, hidden, data.item_popularity)

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Let the student rank if it is time, where the catalogue is sampled."""
        if self._sampled is not None:
            self._sampled.begin_epoch(student, rng)

    def share_ranking(self, ranking: StudentRanking, hidden: sp.csr_matrix) -> None:
        """Take the student's first items from another method's ranking, which is not repeated then.

        It is shared only where the catalogue is sampled, and the same items are left out of it.
        """
        if self._sampled is not None:
            self._sampled.share_ranking(ranking, hidden)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted cross-entropy, less the teacher's entropy, over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        if self._sampled is not None:
            return self.settings.distillation_weight * self._sampled.loss(step, users)
        hidden = ItemSets(self._indptr, self._hidden, users) if self._hides else None
        target = TopTarget(self._items[users], self._probabilities[users], hidden)
        loss = catalogue_divergence(step.embeddings, users, self.num_users, target, self.settings.temperature)
        return self.settings.distillation_weight * loss


class SampledCatalogue(nn.Module):
    """The loss over a sample, with the teacher's items and the student's first ones."""

    def __init__(
        self,
        settings: CrossEntropySettings,
        preferences: Preferences,
        hidden: sp.csr_matrix,
        popularity: npt.NDArray[np.int64],
        num_negatives: int,
    ) -> None:
        """Let the teacher rank; nothing is kept beside its lists and the student's."""
        super().__init__()
        self._settings = settings
        self._hidden = hidden
        self._left = torch.from_numpy(hidden.shape[1] - np.diff(hidden.indptr))
        self.listed = preferences.listed(min(settings.num_top, hidden.shape[1]))
        self.sampler = ItemSampler(popularity, num_negatives)
        num_hard = min(settings.num_hard, hidden.shape[1])
        # What the student puts first is not known before its first turn; what the teacher does is as good.
        first = preferences.top(num_hard) if num_hard else None
        self.ranking = StudentRanking(hidden, num_hard, settings.rank_every, first) if num_hard else None
        self._shared: list[StudentRanking] = []

    def share_ranking(self, ranking: StudentRanking, hidden: sp.csr_matrix) -> None:
        """Use another method's lists of the student, if they leave the same items out and are long enough."""
        is_same = hidden.shape == self._hidden.shape and (hidden.nnz == 0) == (self._hidden.nnz == 0)
        if self.ranking is not None and is_same and ranking.length >= self.ranking.length:
            # Not a submodule: the other method keeps its state.
            self._shared = [ranking]
            self.ranking = None

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Order the catalogue anew, and let the student rank."""
        self.sampler.shuffle(rng)
        if self.ranking is not None:
            self.ranking.begin_epoch(*student.final_embeddings())

    def loss(self, step: Step, users: torch.Tensor) -> torch.Tensor:
        """Sum the divergence over users (B,): a scalar."""
        sample = self.sampler.draw(step.generator)
        exact, owned = self.parts(users, sample)
        num_users = self._hidden.shape[0]
        return sampled_divergence(step.embeddings, users, num_users, exact, sample, owned, self._settings.temperature)

    def parts(self, users: torch.Tensor, sample: Sample) -> tuple[ExactItems, tuple[torch.Tensor, torch.Tensor]]:
        """What `sampled_divergence` sums exactly for users (B,), and what of a sample is theirs or hidden."""
        exact = self._exact_items(users, self._settings.temperature)
        return exact, self._owned(users, exact, sample)

    def _exact_items(self, users: torch.Tensor, temperature: float) -> ExactItems:
        top = self.listed.of(users.cpu().numpy())
        left = self._left[users.cpu()][:, None]
        absent = torch.arange(top.items.shape[1]) >= left
        logits = (torch.from_numpy(top.scores) / temperature).masked_fill(absent, HIDDEN_SCORE)
        items = torch.from_numpy(top.items)
        target = torch.softmax(logits, dim=1).masked_fill(absent, 0.0)
        ranking = self._shared[0] if self._shared else self.ranking
        if ranking is not None:
            hard = ranking.of(users)[:, : min(self._settings.num_hard, ranking.length)].cpu()
            stands_already = (hard[:, :, None] == items[:, None, :]).any(dim=2)
            absent = torch.cat([absent, stands_already | (torch.arange(hard.shape[1]) >= left)], dim=1)
            items = torch.cat([items, hard], dim=1)
        device = users.device
        return ExactItems(items.long().to(device), absent.to(device), target.to(device))

    def _owned(self, users: torch.Tensor, exact: ExactItems, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and places in the sample of what is hidden from a user, or summed exactly."""
        hidden = self._hidden[users.cpu().numpy()]
        counts = torch.from_numpy(np.diff(hidden.indptr)).long() + exact.items.shape[1]
        starts = counts.cumsum(0) - counts
        items = torch.empty(int(counts.sum()), dtype=torch.int64)
        of_exact = starts[:, None] + torch.arange(exact.items.shape[1])
        is_hidden = torch.ones(len(items), dtype=torch.bool)
        is_hidden[of_exact] = False
        items[of_exact] = exact.items.cpu()
        items[is_hidden] = torch.from_numpy(hidden.indices).long()
        owners = torch.repeat_interleave(torch.arange(len(users)), counts)
        places = self.sampler.find(sample, items.to(sample.items.device))
        present = places >= 0
        return owners.to(places.device)[present], places[present].long()


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
    return torch.from_numpy(items.astype(np.int64)), torch.softmax(scores, dim=1)
