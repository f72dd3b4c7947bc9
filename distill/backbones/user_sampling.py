"""Batches of users: what a response loss over the whole catalogue learns from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch

from distill.backbones.sampling import Batch
from distill.errors import DataError


class UserSampler:
    """Every user with training items once an epoch, with one positive of theirs and one uniform item.

    The pairs let a feature loss, which acts on a batch's entities, go along with a response loss, which acts on
    its users. The uniform item is not checked against the positives: it stands for the catalogue.

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
        if train.nnz == 0:
            raise DataError("train: no interactions to learn from; lower the thresholds of 'lowpass data prepare'")
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
