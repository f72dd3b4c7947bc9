"""HetComp: the teacher's lists at earlier epochs first, then its last ones, and a loss that grows finer with them.

A teacher's training leaves lists that are easier to learn than its last: the first K unseen items of every user at S
kept epochs, earliest first, the last being the teacher itself. Each user is at one of them. Every p epochs, from epoch
p on, the student's own first K are compared with the user's next list: G = 1 − DCG / IDCG, an item at rank r that is in
the list gaining 2^exp(−r / 10) − 1. A user moves on where the gap has shrunk by the factor α · 0.995^(epoch / p) since
it was first taken, or has grown. With s the student's scores / τ, R = Σ exp s over the unseen items outside the list,
and O the P = K / 10 training items of a user that the teacher scores highest, a user's loss is

    coarse, until the users' mean stage is the last:   2 Σ_{k ∈ list ∪ O} ln(1 + R exp(−s_k)),
    fine, then:  Σ_{k ∈ O} [E_k − s_k] + ½ Σ_{k ≤ K/2} [D_k − s_k] + ½ Σ_{k ≤ K/10} [D_k − s_k],

D_k = ln(R + Σ exp s over the list from k on), E_k = ln(R + Σ exp s over the list's second half and over O from k on):
the order of the list's head, by the Plackett–Luce likelihood.

Cost of a step with B users: that of `catalogue_loss`, 6 B |I| d_s operations and B |I| exponentials. Every p epochs
until the last stage the student ranks the catalogue, 2 |U| |I| d_s. Kept: 4 S |U| (K + P) bytes of lists.

References:
    Kang, Kweon, Lee, Lian, Xie and Yu, "Distillation from Heterogeneous Models for Top-K Recommendation", WWW 2023,
    arXiv 2303.01130: several teachers, whose lists are first merged. This is the form for one teacher that RCE-KD's
    authors compare with (class HetComp of their public code), with two changes. That code writes a user's new list over
    the first checkpoint's, which nothing reads again; and its O is what stands first in the file, as many as the user
    with the fewest items has. Scores are not cut to ±40: sums are taken in logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Step, Teacher, require_not_negative, require_teacher
from distill.methods.candidates import Lists, find_ranks, rank_unseen
from distill.methods.responses import HIDDEN_SCORE, TRAINING_DEFAULTS, ItemSets, catalogue_loss, scale_temperature

GAIN_DECAY = 10.0
THRESHOLD_DECAY = 0.995
ALL_BUT = 0.005
"""Of a stage: the users' mean counts as the last stage when it is this near, as the public code rounds it."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HetCompSettings:
    """Settings of HetComp; each changes the result.

    Attributes:
        distillation_weight: Factor of the loss, a sum over the batch's users.
        base_weight: Factor of the backbone's own loss beside it.
        temperature: τ of the student, in units of its `score_temperature`.
        num_top: K; at most half the catalogue, since a list is learned against the rest.
        rank_every: p, epochs between looks at the student's lists.
        threshold: α.
    """

    distillation_weight: float = 1.0
    base_weight: float = 0.0
    temperature: float = 1.0
    num_top: int = 50
    rank_every: int = 10
    threshold: float = 1.05

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight", "base_weight")
        for name, least in (("num_top", 1), ("rank_every", 1)):
            if getattr(self, name) < least:
                raise SettingError(f"{name}: {getattr(self, name)} is below {least}")
        for name in ("temperature", "threshold"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name}: {getattr(self, name)} is not above 0")


class HeterogeneousCompression(Method):
    """Learns the teacher's lists in the order in which the teacher came to them."""

    Settings = HetCompSettings
    batches = "users"
    training_defaults = TRAINING_DEFAULTS

    def __init__(self, settings: HetCompSettings, data: Interactions, stages: list[Lists], observed: Lists) -> None:
        """Begin every user with the earliest lists.

        Args:
            settings: As they are to be used.
            data: Whose training items are in nobody's list.
            stages: The teacher's lists, earliest first, shape (|U|, K) each.
            observed: O, shape (|U|, P); what a user with fewer training items has too much is not looked at.
        """
        super().__init__()
        self.settings = settings
        self.base_weight = settings.base_weight
        self._train = data.train
        self._stages = stages
        items = np.stack([np.concatenate([lists, observed], axis=1) for lists in stages])
        degrees = np.diff(data.train.indptr)[:, None]
        present = np.concatenate(
            [np.arange(stages[0].shape[1]) < data.num_items - degrees, np.arange(observed.shape[1]) < degrees], axis=1
        )
        self._items: torch.Tensor
        self._present: torch.Tensor
        self._indptr: torch.Tensor
        self._hidden: torch.Tensor
        for name, values in (
            ("_items", items),
            ("_present", present),
            ("_indptr", data.train.indptr.astype(np.int64)),
            ("_hidden", data.train.indices.astype(np.int64)),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        self._stage: torch.Tensor
        self._gap: torch.Tensor
        self._epochs: torch.Tensor
        self.register_buffer("_stage", torch.zeros(len(observed), dtype=torch.int64))
        self.register_buffer("_gap", torch.zeros(len(observed), dtype=torch.float64))
        self.register_buffer("_epochs", torch.zeros((), dtype=torch.int64))

    @classmethod
    def build(
        cls, settings: HetCompSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> HeterogeneousCompression:
        """Let the teacher rank at every epoch that it kept.

        Raises:
            SettingError: There is no teacher, or it kept nothing of its training.
        """
        teacher = require_teacher(teacher, "hetcomp")
        if not teacher.trajectory:
            raise SettingError(
                "teacher: method 'hetcomp' learns from the teacher's training, of which it kept nothing; train it "
                "with --keep-checkpoints 3"
            )
        length = min(settings.num_top, max(1, data.num_items // 2))
        states = [Teacher(features.float(), data.num_users) for features in (*teacher.trajectory, teacher.features)]
        stages = [state.preferences(data.train).top(length) for state in states]
        return cls(scale_temperature(settings, student), data, stages, _best_observed(states[-1], data, length))

    @property
    def is_fine(self) -> bool:
        """Whether the users' mean stage is the last, so that the loss is the fine one."""
        return float(self._stage.double().mean()) >= len(self._stages) - 1 - ALL_BUT

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Let users move on, where it is time to look."""
        epoch = int(self._epochs)
        self._epochs += 1
        if epoch == 0 or epoch % self.settings.rank_every or self.is_fine:
            return
        lists = rank_unseen(*student.final_embeddings(), self._train, self._stages[0].shape[1])
        gaps = np.stack([list_gaps(lists, wanted, self._train.shape[1]) for wanted in self._stages])
        looks = epoch // self.settings.rank_every
        threshold = self.settings.threshold * THRESHOLD_DECAY**looks
        stage, gap = self._stage.cpu().numpy(), self._gap.cpu().numpy()
        moved = (stage, _next_gaps(gaps, stage)) if looks == 1 else move_on(gaps, stage, gap, threshold)
        for kept, values in zip((self._stage, self._gap), moved, strict=True):
            kept.copy_(torch.from_numpy(values))

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        items = self._items[self._stage[users], users].long()
        hidden = ItemSets(self._indptr, self._hidden, users)
        ranking = ListLoss(items, self._present[users], self._stages[0].shape[1], hidden, fine=self.is_fine)
        loss = catalogue_loss(step.embeddings, users, len(self._stage), self.settings.temperature, ranking)
        return self.settings.distillation_weight * loss


class ListLoss:
    """The coarse or the fine loss of a batch's lists, a block of scores at a time."""

    def __init__(
        self, items: torch.Tensor, present: torch.Tensor, num_top: int, hidden: ItemSets, *, fine: bool
    ) -> None:
        """Take over lists.

        Args:
            items: The list, then O, int64 of shape (B, K + P).
            present: Which of them count, likewise.
            num_top: K.
            hidden: Training items, which are not among the rest.
            fine: Which loss.
        """
        self._items = items
        self._present = present
        self._num_top = num_top
        self._hidden = hidden
        self._fine = fine

    def __call__(self, rows: slice, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the block's loss, and its gradient with respect to the scores, which are overwritten."""
        items, present, num_top = self._items[rows], self._present[rows], self._num_top
        own = scores.gather(1, items).requires_grad_()
        self._hidden.hide(rows, scores)
        scores.scatter_(1, items[:, :num_top], HIDDEN_SCORE)
        highest = scores.amax(dim=1, keepdim=True)
        rest = scores.sub_(highest).exp_()
        total = rest.sum(dim=1, keepdim=True)
        below = (highest + total.log()).requires_grad_()
        with torch.enable_grad():
            counted = torch.where(present, own, HIDDEN_SCORE)
            loss_of = fine_losses if self._fine else coarse_losses
            loss = torch.where(present, loss_of(counted, below, num_top), 0.0).sum()
        of_own, of_below = torch.autograd.grad(loss, (own, below))
        return loss.detach(), rest.mul_(of_below / total).scatter_add_(1, items, of_own)


def coarse_losses(own: torch.Tensor, below: torch.Tensor, num_top: int) -> torch.Tensor:
    """2 ln(1 + R / exp s) of each item by itself.

    Args:
        own: s of the list, best first, and of O: shape (B, K + P).
        below: ln R, shape (B, 1).
        num_top: K; here list and O are alike.

    Returns:
        Shape (B, K + P).
    """
    del num_top
    return 2 * (torch.logaddexp(own, below) - own)


def fine_losses(own: torch.Tensor, below: torch.Tensor, num_top: int) -> torch.Tensor:
    """D_k − s_k of the list's head, weighed ½ for the first half and ½ for the first tenth, and E_k − s_k of O.

    Args:
        own: s of the list, best first, and of O: shape (B, K + P).
        below: ln R, shape (B, 1).
        num_top: K.

    Returns:
        Shape (B, K + P).
    """
    top, observed = own[:, :num_top], own[:, num_top:]
    half, tenth = num_top // 2, num_top // 10
    ranks = torch.arange(num_top, device=own.device)
    weights = 0.5 * (ranks < half) + 0.5 * (ranks < tenth)
    second_half = torch.cat([below, top[:, half:]], dim=1).logsumexp(dim=1, keepdim=True)
    return torch.cat([_sums_from(top, below) * weights, _sums_from(observed, second_half)], dim=1)


def _sums_from(scores: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """ln(exp below + Σ_{j ≥ k} exp s_j) − s_k: shape (B, K)."""
    return torch.logaddexp(scores.flip(1).logcumsumexp(dim=1).flip(1), below) - scores


def _best_observed(teacher: Teacher, data: Interactions, num_top: int) -> Lists:
    """The P training items of each user that the teacher scores highest; filled up by others: shape (|U|, P)."""
    degrees = np.diff(data.train.indptr)
    width = max(1, int(degrees.max()))
    taken = np.zeros((data.num_users, width), dtype=np.int32)
    present = np.arange(width) < degrees[:, None]
    taken[present] = data.train.indices
    scores = np.where(present, teacher.preferences(data.train).score(taken, torch.device("cpu")).numpy(), -np.inf)
    first = np.argsort(-scores, axis=1, kind="stable")[:, : max(1, num_top // 10)]
    return np.take_along_axis(taken, first, axis=1)


def list_gaps(lists: Lists, wanted: Lists, num_items: int) -> Floats:
    """1 − DCG / IDCG of lists (R, K) against wanted ones (R, K), rank r gaining 2^exp(−r / 10) − 1: shape (R,)."""
    length = lists.shape[1]
    ranks = np.arange(length)
    gains = (2 ** np.exp(-ranks / GAIN_DECAY) - 1) / np.log2(ranks + 2)
    found: Floats = (find_ranks(wanted, lists, num_items) < length) @ gains / gains.sum()
    return 1 - found


def move_on(
    gaps: Floats, stage: npt.NDArray[np.int64], before: Floats, threshold: float
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Move users to their next stage where the gap to it has shrunk by the threshold's factor, or grown.

    Args:
        gaps: To every stage, shape (S, R).
        stage: Where each user is, shape (R,).
        before: The gap to the next stage when it became the next, shape (R,).
        threshold: Gap before / gap now beyond which a user moves.

    Returns:
        New stages and gaps before, shape (R,) each.
    """
    now = np.maximum(_next_gaps(gaps, stage), np.finfo(np.float64).tiny)
    moves = (stage < len(gaps) - 1) & ((before / now > threshold) | (before < now))
    moved = stage + moves
    return moved, np.where(moves, _next_gaps(gaps, moved), before)


def _next_gaps(gaps: Floats, stage: npt.NDArray[np.int64]) -> Floats:
    """The gap to each user's next stage, the last one's where there is none: shape (R,)."""
    following = np.minimum(stage + 1, len(gaps) - 1)
    chosen: Floats = np.take_along_axis(gaps, following[None], axis=0)[0]
    return chosen
