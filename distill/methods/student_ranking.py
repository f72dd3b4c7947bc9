"""What the student puts first, ranked anew every few epochs."""

from __future__ import annotations

import scipy.sparse as sp
import torch
from torch import nn

from distill.methods.candidate_draws import Lists, rank_unseen


class StudentRanking(nn.Module):
    """Lists by the student as it was when they were last due.

    The lists and the count of epochs are in the state: a resumed run goes on with what the straight one has.
    """

    def __init__(self, seen: sp.csr_matrix, length: int, every: int) -> None:
        """Make room for the lists.

        Args:
            seen: What is not to be listed, CSR of shape (R, N).
            length: C, at most N.
            every: Epochs from one ranking to the next.
        """
        super().__init__()
        self._seen = seen
        self._every = every
        self.register_buffer("_lists", torch.zeros(seen.shape[0], length, dtype=torch.int32))
        self.register_buffer("_epochs", torch.zeros((), dtype=torch.int64))
        self._lists: torch.Tensor
        self._epochs: torch.Tensor

    @property
    def lists(self) -> Lists:
        """Shape (R, C)."""
        lists: Lists = self._lists.cpu().numpy()
        return lists

    def begin_epoch(self, rows: torch.Tensor, candidates: torch.Tensor) -> bool:
        """Rank if it is time.

        Args:
            rows: The student's embeddings, shape (R, d).
            candidates: Likewise, shape (N, d).

        Returns:
            Whether the lists are new.
        """
        due = int(self._epochs) % self._every == 0
        if due:
            ranked = rank_unseen(rows, candidates, self._seen, self._lists.shape[1])
            self._lists.copy_(torch.from_numpy(ranked))
        self._epochs += 1
        return due
