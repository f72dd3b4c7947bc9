"""What every baseline is: scores for rows of users, scores for any histories, and what it weighs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.evaluation.ranking import ScoreRows

ScoreHistories = Callable[[sp.csr_matrix], torch.Tensor | npt.NDArray[Any]]
"""Interactions of any users, new ones too, CSR of ones (B, |I|) → their scores (B, |I|)."""


@dataclass(frozen=True)
class Baseline:
    """A fitted model that is not embeddings.

    Attributes:
        score_rows: Training users (B,) → scores (B, |I|).
        score_histories: Interactions of any users, CSR of ones (B, |I|) → scores (B, |I|); of a training user's own
            interactions the same as `score_rows`.
        num_bytes: What scoring keeps, bytes, without the training interactions.
        factors: Vectors of users (|U|, d) and items (|I|, d) whose inner products the scores are, made when they are
            asked for; None where they are not such.
    """

    score_rows: ScoreRows
    score_histories: ScoreHistories
    num_bytes: int
    factors: Callable[[], tuple[torch.Tensor, torch.Tensor]] | None = None


def from_histories(train: sp.csr_matrix, score_histories: ScoreHistories, num_bytes: int) -> Baseline:
    """Make a baseline for which a training user is its training interactions and nothing else."""
    return Baseline(lambda users: score_histories(train[users]), score_histories, num_bytes)
