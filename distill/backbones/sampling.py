"""Samplers: how an epoch is divided into batches, and where their negatives come from.

- `PairwiseSampler`: every interaction once, with a uniform negative of its own, for BPR.
- `SharedNegativesSampler`: every interaction once, with many negatives that all pairs of a batch share, for losses that
  are one matrix product.
- `UserSampler`: every user once, for response losses over the whole catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.errors import DataError

MAX_REDRAWS = 200
SLOTS_PER_ITEM = 8
BLOCK = 2**20
"""Interactions that are looked at, or put in order, at once: what is made of them for that is tens of megabytes."""


@dataclass(frozen=True)
class Batch:
    """One mini-batch of (user, positive, negative) rows, each int64 of shape (B,)."""

    users: torch.Tensor
    positives: torch.Tensor
    negatives: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to another device."""
        return Batch(self.users.to(device), self.positives.to(device), self.negatives.to(device))


class Sampler(Protocol):
    """Whatever draws the batches of an epoch.

    Attributes:
        num_batches: Batches an epoch.
    """

    num_batches: int

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch in random order."""


class PairwiseSampler:
    """Draws the epochs of a pairwise (BPR) training.

    Negatives are uniform over the items a user has not interacted with in training (Rendle et al., UAI 2009,
    section 4.2), drawn for the whole epoch at once; a draw that hits a training item is drawn again. Each user has
    `SLOTS_PER_ITEM` flags or more for each training item, in the order of the users, so that they are read in order
    too. An item raises the flag at its number modulo their count, and only the tenth of the draws that meet a raised
    flag is searched among the user's training items.

    Kept: 4 bytes an interaction and 1 to 2 of flags. An epoch takes 8 more.

    Attributes:
        num_batches: Batches an epoch.
    """

    def __init__(self, train: sp.csr_matrix, batch_size: int) -> None:
        """Raise the flags by which draws are rejected.

        Args:
            train: CSR of shape (|U|, |I|) with sorted indices.
            batch_size: Interactions a batch.

        Raises:
            DataError: There are no interactions, or a user has interacted with every item.
        """
        _require_interactions(train)
        degrees = np.diff(train.indptr)
        if degrees.max() >= train.shape[1]:
            row = int(degrees.argmax())
            raise DataError(
                f"train: user row {row} has interacted with every item, so it has no negative; drop that user"
            )
        self._users = np.repeat(np.arange(train.shape[0], dtype=np.int32), degrees)
        self._positives = train.indices.astype(np.int32, copy=False)
        self._indptr = train.indptr.astype(np.int64)
        self._num_items = train.shape[1]
        widths = 2 ** np.ceil(np.log2(SLOTS_PER_ITEM * np.maximum(degrees, 1))).astype(np.int64)
        self._first_slots = np.cumsum(widths) - widths
        self._slot_masks = (widths - 1).astype(np.int32)
        starts = np.searchsorted(self._indptr, np.arange(0, train.nnz, BLOCK), side="right") - 1
        self._parts = list(pairwise(np.unique([0, *starts, train.shape[0]]).tolist()))
        self._flags = np.concatenate([self._raise_flags(*part) for part in self._parts])
        self._batch_size = batch_size
        self.num_batches = -(-train.nnz // batch_size)

    def _raise_flags(self, first: int, last: int) -> npt.NDArray[np.uint8]:
        """The flags of the users from `first` to before `last`, eight a byte."""
        slots = self._slots(first, last, self._positives)
        start, end = self._first_slots[first], self._first_slots[last - 1] + self._slot_masks[last - 1] + 1
        flags = np.zeros(end - start, dtype=np.bool_)
        flags[slots - start] = True
        return np.packbits(flags, bitorder="little")

    def _slots(self, first: int, last: int, items: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Whose flag an item would be, for an item of each interaction of some users."""
        places = slice(self._indptr[first], self._indptr[last])
        users = self._users[places]
        slots: npt.NDArray[np.int64] = self._first_slots[users] + (items[places] & self._slot_masks[users])
        return slots

    def _meeting_flags(self, first: int, last: int, items: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Interactions of some users whose item meets a raised flag."""
        slots = self._slots(first, last, items)
        is_raised = (self._flags[slots >> 3] >> (slots & 7).astype(np.uint8)) & 1
        places: npt.NDArray[np.int64] = np.flatnonzero(is_raised) + self._indptr[first]
        return places

    def draw_negatives(self, rng: np.random.Generator) -> npt.NDArray[np.int32]:
        """Draw one negative per training interaction, in the order of the CSR.

        Returns:
            Item rows, shape (nnz,).
        """
        negatives = rng.integers(self._num_items, size=len(self._users), dtype=np.int32)
        open_places = np.concatenate([self._meeting_flags(*part, negatives) for part in self._parts])
        for _ in range(MAX_REDRAWS):
            open_places = open_places[self._have_taken(self._users[open_places], negatives[open_places])]
            if not len(open_places):
                return negatives
            negatives[open_places] = rng.integers(self._num_items, size=len(open_places), dtype=np.int32)
        for user in np.unique(self._users[open_places]):
            mine = open_places[self._users[open_places] == user]
            negatives[mine] = rng.choice(self._untouched(int(user)), size=len(mine))
        return negatives

    def _have_taken(self, users: npt.NDArray[np.int32], items: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Whether users have taken items, pair by pair: a binary search in the users' rows, all pairs at once."""
        last = len(self._positives) - 1
        low, ends = self._indptr[users], self._indptr[users + 1]
        high = ends
        for _ in range(int((ends - low).max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            is_below = (self._positives[np.minimum(middle, last)] < items) & (low < high)
            low, high = np.where(is_below, middle + 1, low), np.where(is_below, high, middle)
        found: npt.NDArray[np.bool_] = (low < ends) & (self._positives[np.minimum(low, last)] == items)
        return found

    def _untouched(self, user: int) -> npt.NDArray[np.int64]:
        """List the items that a user has left: for one who has taken nearly the whole catalogue."""
        taken = self._positives[self._indptr[user] : self._indptr[user + 1]]
        return np.setdiff1d(np.arange(self._num_items), taken)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch in random order."""
        columns = (self._users, self._positives, self.draw_negatives(rng))
        for users, positives, negatives in _shuffled(columns, self._batch_size, rng):
            yield Batch(users, positives, negatives)


class SharedNegativesSampler:
    """Every interaction once an epoch, in random order; each batch draws distinct uniform items for all its pairs.

    The scores of a batch are then one matrix product, and the items' rows are read once a batch instead of once a
    pair. An item may be one that a user of the batch has taken: `taken_pairs` finds those.

    Attributes:
        num_batches: Batches an epoch.
    """

    def __init__(self, train: sp.csr_matrix, batch_size: int, num_negatives: int) -> None:
        """Take over the interactions.

        Args:
            train: CSR of shape (|U|, |I|).
            batch_size: Interactions a batch.
            num_negatives: n, negatives a batch; the whole catalogue, where that is less.

        Raises:
            DataError: There are no interactions.
        """
        _require_interactions(train)
        self._users = np.repeat(np.arange(train.shape[0], dtype=np.int32), np.diff(train.indptr))
        self._positives = train.indices.astype(np.int32, copy=False)
        self._num_items = train.shape[1]
        self._batch_size = batch_size
        self._num_negatives = min(num_negatives, train.shape[1])
        self.num_batches = -(-train.nnz // batch_size)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch: users and positives of shape (B,), negatives of shape (n,)."""
        for users, positives in _shuffled((self._users, self._positives), self._batch_size, rng):
            negatives = rng.choice(self._num_items, size=self._num_negatives, replace=False, shuffle=False)
            yield Batch(users, positives, torch.from_numpy(negatives))


class UserSampler:
    """Every user with training items once an epoch, with one positive of theirs and one uniform item.

    The pairs let the backbone's own loss go along with a response loss, which acts on the batch's users; what a feature
    loss needs beside them draws `interactions_of`. The uniform item is not checked against the positives: it stands
    for the catalogue.

    Attributes:
        num_batches: Batches an epoch.
    """

    def __init__(self, train: sp.csr_matrix, batch_size: int) -> None:
        """Find the users that can be learned from.

        Args:
            train: CSR of shape (|U|, |I|).
            batch_size: Users a batch.

        Raises:
            DataError: There are no interactions.
        """
        _require_interactions(train)
        self._train = train
        self._degrees = np.diff(train.indptr)
        self._users = np.flatnonzero(self._degrees)
        self._batch_size = batch_size
        self.num_batches = -(-len(self._users) // batch_size)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch in random order."""
        users = rng.permutation(self._users)
        places = self._train.indptr[users] + (rng.random(len(users)) * self._degrees[users]).astype(np.int64)
        positives = self._train.indices[places].astype(np.int64)
        others = rng.integers(self._train.shape[1], size=len(users))
        columns = [torch.from_numpy(column) for column in (users, positives, others)]
        for start in range(0, len(users), self._batch_size):
            yield Batch(*(column[start : start + self._batch_size] for column in columns))


def _shuffled(
    columns: Sequence[npt.NDArray[np.int32]], batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Put columns in one random order, and yield them a batch at a time as int64."""
    length = len(columns[0])
    order: npt.NDArray[np.signedinteger[Any]] = np.arange(length, dtype=np.int32 if length < 2**31 else np.int64)
    rng.shuffle(order)  # draws what `permutation` does, in half the memory
    block = batch_size * max(1, BLOCK // batch_size)
    for start in range(0, length, block):
        places = order[start : start + block]
        taken = [torch.from_numpy(column.take(places)).long() for column in columns]
        yield from zip(*(torch.split(column, batch_size) for column in taken), strict=True)


def interactions_of(train: sp.csr_matrix, users: torch.Tensor, generator: torch.Generator) -> Batch:
    """Collect all training interactions of some users, each with a uniform item, not checked against the positives.

    Args:
        train: CSR of shape (|U|, |I|).
        users: User rows, each once, int64 of shape (B,).
        generator: Randomness of the uniform items, on the device of `users`.
    """
    histories = train[users.numpy(force=True)]
    positives = torch.from_numpy(histories.indices).long().to(users.device)
    owners = torch.repeat_interleave(users, torch.from_numpy(np.diff(histories.indptr)).to(users.device))
    others = torch.randint(train.shape[1], positives.shape, generator=generator, device=users.device)
    return Batch(owners, positives, others)


def taken_pairs(
    train: sp.csr_matrix, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find which users have taken which items, at the cost of the users' items.

    Args:
        train: CSR of shape (|U|, |I|).
        users: User rows, shape (B,), repeated as they may be.
        items: Distinct item rows, shape (n,).

    Returns:
        (places in `users`, places in `items`), one of each a pair.
    """
    place = np.full(train.shape[1], -1, dtype=np.int64)
    place[items] = np.arange(len(items))
    histories = train[users]
    columns = place[histories.indices]
    hits = np.flatnonzero(columns >= 0)
    rows = np.searchsorted(histories.indptr, hits, side="right") - 1
    return rows, columns[hits]


def _require_interactions(train: sp.csr_matrix) -> None:
    if train.nnz == 0:
        raise DataError("train: no interactions to learn from; lower the thresholds of 'lowpass data prepare'")
