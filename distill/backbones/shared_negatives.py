"""Training pairs with many negatives, which all pairs of a batch share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.backbones.sampling import Batch
from distill.errors import DataError


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
        if train.nnz == 0:
            raise DataError("train: no interactions to learn from; lower the thresholds of 'lowpass data prepare'")
        self._users = np.repeat(np.arange(train.shape[0], dtype=np.int64), np.diff(train.indptr))
        self._positives = train.indices.astype(np.int64)
        self._num_items = train.shape[1]
        self._batch_size = batch_size
        self._num_negatives = min(num_negatives, train.shape[1])
        self.num_batches = -(-train.nnz // batch_size)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch: users and positives of shape (B,), negatives of shape (n,)."""
        order = rng.permutation(len(self._users))
        users, positives = (torch.from_numpy(column[order]) for column in (self._users, self._positives))
        for start in range(0, len(order), self._batch_size):
            part = slice(start, start + self._batch_size)
            negatives = rng.choice(self._num_items, size=self._num_negatives, replace=False, shuffle=False)
            yield Batch(users[part], positives[part], torch.from_numpy(negatives))


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
