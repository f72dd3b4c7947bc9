"""What reaches the training of a blend: every user's first items and their scores, kept with the run.

8 `LISTED` |U| bytes in memory and on disk. What a student lists beyond them counts as the last of them.

Standardised scores have no temperature of their own. One factor for all users sets it, so that the softmax over a
user's first `HEAD` items has a perplexity (the exponential of its entropy) of `PERPLEXITY` · `HEAD` on average.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from distill.errors import SettingError
from distill.evaluation.ranking import ScoreRows, top_scores
from distill.methods.candidates import Lists, find_ranks
from distill.storage import write_file

LISTED = 500
HEAD = 100
PERPLEXITY = 0.6
LISTS_PATTERN = "lists-*"
HEAD_USERS = 5000
"""Evenly spread ones whose perplexity is measured."""


@dataclass(frozen=True)
class TopLists:
    """The `Preferences` of a teacher that is known by its lists alone.

    Attributes:
        items: Best first, int32 of shape (|U|, L).
        scores: Of them, float32 of shape (|U|, L), or float16 where both are mapped files.
        num_items: |I|.
        scale: Factor of the scores, for files that are not changed.
    """

    items: Lists
    scores: npt.NDArray[np.floating[Any]]
    num_items: int
    scale: float = 1.0

    def top(self, length: int) -> Lists:
        """Return the first items of every user, shape (|U|, K).

        Raises:
            SettingError: The lists are shorter than K and than the catalogue.
        """
        listed = self.items.shape[1]
        if min(length, self.num_items) > listed:
            raise SettingError(f"num_top: {length} exceeds the {listed} items a user that a blend lists")
        return self.items[:, :length]

    def score(self, items: Lists, device: torch.device) -> torch.Tensor:
        """Look scores up, shape (|U|, K) both; what is not listed has the last one's."""
        ranks = np.minimum(find_ranks(self.items, items, self.num_items), self.items.shape[1] - 1)
        scores = np.take_along_axis(self.scores, ranks, axis=1)
        if isinstance(self.scores, np.memmap):
            scores = scores.astype(np.float32) * np.float32(self.scale)
        return torch.from_numpy(scores).to(device)

    def of(self, users: npt.NDArray[np.int64]) -> TopLists:
        """Take rows of users, in memory and in float32."""
        scores = self.scores[users].astype(np.float32) * np.float32(self.scale)
        return TopLists(np.array(self.items[users]), np.array(scores), self.num_items)

    def listed(self, length: int) -> TopLists:
        """Return the first items of every user with their scores."""
        return replace(self, items=self.top(length), scores=self.scores[:, :length])

    def scaled(self, factor: float) -> TopLists:
        """Multiply the scores; those of a file when they are read."""
        if isinstance(self.scores, np.memmap):
            return replace(self, scale=self.scale * factor)
        return replace(self, scores=self.scores * np.float32(factor))


def list_top(score_rows: ScoreRows, hidden: sp.csr_matrix) -> TopLists:
    """Rank the catalogue for every user, and give the scores their temperature.

    Args:
        score_rows: A blend.
        hidden: What is left out, CSR of shape (|U|, |I|). Where a user has fewer other items than a list is long, it
            fills the end, with the last one's score.
    """
    num_items = int(hidden.shape[1])
    items, scores = top_scores(score_rows, hidden, min(LISTED, num_items), title="blending")
    left = np.maximum(num_items - np.diff(hidden.indptr), 1)[:, None]
    last = np.take_along_axis(scores, np.minimum(left, scores.shape[1]) - 1, axis=1)
    scores = np.where(np.isfinite(scores), scores, np.where(np.isfinite(last), last, 0.0))
    scores *= sharpness(scores[:: max(1, len(scores) // HEAD_USERS), :HEAD])
    return TopLists(items.astype(np.int32), scores.astype(np.float32), num_items)


def sharpness(scores: npt.NDArray[np.floating[Any]]) -> float:
    """Find by bisection the factor c at which softmax(c s) has the wanted perplexity on average; 1 where all are equal.

    Args:
        scores: s, best first, shape (B, K).
    """
    below = torch.from_numpy(scores - scores[:, :1]).double()
    if not bool((below < 0).any()):
        return 1.0
    low, high = -12.0, 12.0
    for _ in range(50):
        middle = (low + high) / 2
        logs = torch.log_softmax(below * float(np.exp(middle)), dim=1)
        perplexity = torch.exp(-(logs.exp() * logs).sum(dim=1)).mean()
        low, high = (middle, high) if perplexity > PERPLEXITY * below.shape[1] else (low, middle)
    return float(np.exp(low))


@dataclass(frozen=True)
class ListStore:
    """Lists on disk.

    Attributes:
        folder: Where they are.
        fingerprint: Of all that they are made of, in hexadecimal: a part of their names.
    """

    folder: Path
    fingerprint: str

    def read(self, name: str, num_items: int) -> tuple[TopLists, dict[str, Any]] | None:
        """Return lists and their description, or None where they must be made."""
        try:
            with safe_open(self._path(name), framework="numpy") as file:
                lists = TopLists(file.get_tensor("items"), file.get_tensor("scores"), num_items)
                return lists, json.loads(file.metadata()["description"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def write(self, name: str, lists: TopLists, description: Mapping[str, Any]) -> None:
        """Write lists whole or not at all."""
        metadata = {"description": json.dumps(description)}
        write_file(self._path(name), save({"items": lists.items, "scores": lists.scores}, metadata))

    def folder_of(self, name: str) -> Path:
        """Where lists are that are files to be mapped."""
        return self.folder / f"lists-{self.fingerprint[:12]}-{name}"

    def _path(self, name: str) -> Path:
        return self.folder / f"lists-{self.fingerprint[:12]}-{name}.safetensors"
