"""What the ranks learn together: BPR, FreqD beside it, or the cross-entropy of the teacher's first items.

Each rank draws from its own users. In every one of an epoch's steps it takes its proportionate part, so that each
interaction (or user) comes once an epoch and the ranks' batches add up to one batch of the size that was asked for:
what they then do is one process's step on that batch. The sum of the ranks' losses is the loss of the step.

- BPR: the users and items of the rank's triples, each once, are fetched; the loss is `pairwise_loss` on them.
- FreqD: an entity of the batch is compared by the rank in charge of it, which has its teacher row on disk. Users are
  the rank's own; of the items of all triples each rank is told (16 bytes a triple), and takes its own. Filtered student
  rows are bags.
- Candidates: `ce` over a sample (`distill.methods.sampled_softmax`), which all ranks draw alike. The loss is the same
  function as in one process; what is its table there are the rows here that the step fetched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import nn

from distill.backbones.pairwise_loss import pairwise_loss
from distill.backbones.sampling import Batch, PairwiseSampler
from distill.distributed.ranks import Ranks
from distill.distributed.shares import Share
from distill.distributed.table import ShardedTable
from distill.errors import SettingError
from distill.methods.cross_entropy import NUM_NEGATIVES, CrossEntropySettings, SampledCatalogue
from distill.methods.features import batch_entities
from distill.methods.freqd import FreqDSettings
from distill.methods.projector import Projector, build_projector
from distill.methods.sampled_softmax import ExactItems, Sample, sampled_divergence
from distill.methods.top_lists import TopLists


@dataclass(frozen=True)
class World:
    """What every objective works with.

    Attributes:
        share: This rank's part of the data.
        table: The student.
        ranks: Who train together.
        batch_size: Interactions, or users, of all ranks a step.
        weight_decay: λ of the penalty λ/2 ‖x‖² of each row that a rank fetches for a step.
    """

    share: Share
    table: ShardedTable
    ranks: Ranks
    batch_size: int
    weight_decay: float = 0.0


class Objective(nn.Module, ABC):
    """A loss, and the batches that it is summed over; its parameters are whole on each rank."""

    def __init__(self, world: World, counted: npt.NDArray[np.int64]) -> None:
        """Divide an epoch into steps.

        Args:
            world: What it works with.
            counted: Interactions, or users, of each rank, shape (W,).
        """
        super().__init__()
        self.world = world
        self.total = int(counted.sum())
        self.num_steps = -(-self.total // world.batch_size)
        self.most_per_rank = int(-(-counted.max() // self.num_steps))

    @abstractmethod
    def epoch(self, rng: np.random.Generator, shared: np.random.Generator) -> Iterator[Any]:
        """Yield the rank's part of each of `num_steps` batches; `rng` is its own, `shared` the same on all ranks."""

    @abstractmethod
    def loss(self, batch: Any) -> torch.Tensor:
        """Sum the rank's losses of a step: a scalar; all ranks come here together."""

    def penalty(self, rows: torch.Tensor) -> torch.Tensor:
        """λ/2 ‖x‖² of fetched rows, shape (n, d)."""
        return 0.5 * self.world.weight_decay * rows.square().sum()


def split_batch(batch: Batch, steps: int) -> Iterator[Batch]:
    """Cut an epoch into parts that differ by at most one row."""
    columns = [torch.tensor_split(column, steps) for column in (batch.users, batch.positives, batch.negatives)]
    for parts in zip(*columns, strict=True):
        yield Batch(*parts)


class PairwiseObjective(Objective):
    """BPR over the interactions of all ranks."""

    def __init__(self, world: World) -> None:
        """Count the interactions of each rank."""
        super().__init__(world, np.array(world.ranks.gather(int(world.share.train.nnz))))
        has_any = world.share.train.nnz > 0
        self._sampler = PairwiseSampler(world.share.train, world.share.train.nnz) if has_any else None

    def epoch(self, rng: np.random.Generator, shared: np.random.Generator) -> Iterator[Batch]:
        """Yield triples of the rank's users, numbered from its first one."""
        nothing = torch.empty(0, dtype=torch.int64)
        whole = Batch(nothing, nothing, nothing) if self._sampler is None else next(iter(self._sampler.epoch(rng)))
        yield from split_batch(whole, self.num_steps)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum the BPR losses of the rank's triples."""
        ids, places = self.entities(batch)
        return self.pairs(self.world.table.rows(ids), places)

    def entities(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """List the table rows of a batch, each once, and the places of users, positives and negatives: (3, B)."""
        first_user, first_item = self.world.share.users.start, self.world.share.num_users
        columns = [batch.users + first_user, batch.positives + first_item, batch.negatives + first_item]
        ids, places = torch.unique(torch.stack(columns), return_inverse=True)
        return ids.to(self.world.ranks.device), places.to(self.world.ranks.device)

    def pairs(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Sum the BPR losses over fetched rows, and their penalty."""
        return pairwise_loss(rows, *places.unbind()) + self.penalty(rows)


class FreqDObjective(PairwiseObjective):
    """FreqD beside BPR, over the user–item graph, filter before projector."""

    def __init__(
        self, world: World, settings: FreqDSettings, filtered: sp.csr_matrix, targets: npt.NDArray[np.float16]
    ) -> None:
        """Make the projectors, the same on each rank.

        Args:
            world: What it works with.
            settings: Filled by `fill_published`.
            filtered: The rank's rows of h(L), CSR of shape (own entities, N).
            targets: Its rows of h(L) X_t, shape (own entities, d_t), which may be mapped from disk.
        """
        super().__init__(world)
        self.settings = settings
        self._filtered, self._targets = filtered, targets
        sizes = (world.table.shape[1], targets.shape[1], settings.hidden_dim, settings.num_experts, settings.dropout)
        self.user_projector: Projector = build_projector(settings.projector, *sizes)
        self.item_projector: Projector = build_projector(settings.projector, *sizes)
        self.to(world.ranks.device)
        self._generator = torch.Generator(world.ranks.device)

    def epoch(self, rng: np.random.Generator, shared: np.random.Generator) -> Iterator[Batch]:
        """Yield triples, and draw what the projectors drop."""
        self._generator.manual_seed(int(rng.integers(2**62)))
        yield from super().epoch(rng, shared)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum the BPR losses of the rank's triples, and β times the distances of its entities of the batch."""
        device, table = self.world.ranks.device, self.world.table
        ids, places = self.entities(batch)
        own, row_weights, num_users = self._in_charge(batch)
        bags = self._filtered[own.numpy()]
        entries = torch.from_numpy(bags.indices).long().to(device), torch.from_numpy(bags.data).to(device)
        lengths = torch.from_numpy(np.diff(bags.indptr)).int().to(device)
        ones = torch.ones(len(ids), dtype=torch.int32, device=device)
        fetched = table.bags(
            torch.cat([ids, entries[0]]), torch.cat([ones.float(), entries[1]]), torch.cat([ones, lengths])
        )
        pairs = self.pairs(fetched[: len(ids)], places)
        return pairs + self.settings.distillation_weight * self._distances(
            fetched[len(ids) :], own, row_weights.to(device), num_users
        )

    def _in_charge(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Of the entities of all ranks' triples those of this rank: see `batch_entities`, numbered by range."""
        share, ranks = self.world.share, self.world.ranks
        told = ranks.gather_rows(
            torch.stack([batch.positives, batch.negatives], dim=1).to(ranks.device), self.most_per_rank
        ).cpu()
        told = told.view(-1, 2)
        first, last = share.items.start, share.items.stop
        positives, negatives = (items[(items >= first) & (items < last)] - first for items in told.unbind(1))
        mine = Batch(batch.users, positives, negatives)
        return batch_entities(mine, share.num_own_users, self.settings.sides)

    def _distances(
        self, rows: torch.Tensor, own: torch.Tensor, row_weights: torch.Tensor, num_users: int
    ) -> torch.Tensor:
        targets = torch.from_numpy(self._targets[own.numpy()].astype(np.float32)).to(rows.device)
        norms, places = targets.square().sum(dim=1), torch.arange(len(targets), device=rows.device)
        common = (self.settings.loss, self._generator)
        user, item = (
            projector.loss(rows[part], targets, norms, places[part], row_weights[part], *common)
            for projector, part in (
                (self.user_projector, slice(None, num_users)),
                (self.item_projector, slice(num_users, None)),
            )
        )
        return user + item


@dataclass(frozen=True)
class Candidates:
    """A step of `ce`: the rank's users, and the items that all ranks share.

    Attributes:
        users: Numbered from the rank's first one, each once, int64 of shape (B,).
        sample: Of the catalogue.
    """

    users: torch.Tensor
    sample: Sample


def sampled_settings(settings: CrossEntropySettings) -> CrossEntropySettings:
    """Fill in what `ce` is on many ranks: always over a sample, and without the student's own first items.

    Raises:
        SettingError: One is given that it cannot be.
    """
    usual = CrossEntropySettings()
    if settings.num_negatives == 0:
        raise SettingError("num_negatives: 0 scores the whole catalogue, which is not sharded; give 1 or more")
    if settings.num_hard not in (0, usual.num_hard) or settings.rank_every != usual.rank_every:
        raise SettingError("num_hard, rank_every: no rank can rank by the student alone; leave them out")
    return replace(settings, num_negatives=settings.num_negatives or NUM_NEGATIVES, num_hard=0)


class CandidateObjective(Objective):
    """Cross-entropy to the teacher's first items, over those and a sample of the catalogue."""

    def __init__(self, world: World, settings: CrossEntropySettings, lists: TopLists, hidden: sp.csr_matrix) -> None:
        """Take over the teacher's lists.

        Args:
            world: What it works with.
            settings: Filled by `sampled_settings`.
            lists: Of the rank's users.
            hidden: What is left out of them and of the sample, CSR of shape (own users, |I|).
        """
        self._users = np.flatnonzero(np.diff(world.share.train.indptr))
        super().__init__(world, np.array(world.ranks.gather(len(self._users))))
        self._settings = settings
        self._catalogue = SampledCatalogue(
            settings, lists, hidden, world.share.item_counts, settings.num_negatives or NUM_NEGATIVES
        )

    def epoch(self, rng: np.random.Generator, shared: np.random.Generator) -> Iterator[Candidates]:
        """Yield each of the rank's users once, and beside them items that are the same on all ranks."""
        self._catalogue.sampler.shuffle(shared)
        generator = torch.Generator().manual_seed(int(shared.integers(2**62)))
        for users in np.array_split(rng.permutation(self._users), self.num_steps):
            yield Candidates(torch.from_numpy(users), self._catalogue.sampler.draw(generator))

    def loss(self, batch: Candidates) -> torch.Tensor:
        """Sum the weighted cross-entropies, less the teacher's entropy, of the rank's users."""
        share, device = self.world.share, self.world.ranks.device
        exact, owned = self._catalogue.parts(batch.users, batch.sample)
        items, places = torch.unique(torch.cat([exact.items.reshape(-1), batch.sample.items]), return_inverse=True)
        ids = torch.cat([batch.users + share.users.start, items + share.num_users])
        rows = self.world.table.rows(ids.to(device))
        of_exact, of_sample = places.to(device).tensor_split([exact.items.numel()])
        loss = sampled_divergence(
            rows,
            torch.arange(len(batch.users), device=device),
            len(batch.users),
            ExactItems(of_exact.view_as(exact.items), exact.absent.to(device), exact.target.to(device)),
            Sample(of_sample, batch.sample.log_weights.to(device)),
            (owned[0].to(device), owned[1].to(device)),
            self._settings.temperature,
        )
        return self._settings.distillation_weight * loss + self.penalty(rows)
