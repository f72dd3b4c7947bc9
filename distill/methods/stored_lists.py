"""Lists of a catalogue that is not scored whole, made by inner products and inverted lists, and kept on disk.

A user's first `STORED` items take 6 bytes each: 1.2 GB for a million users, mapped and not read whole, where the 500
of a small catalogue would be 4 GB. So many are what `rcekd` compares, C, and twice what `ce` learns. Scores are kept as
their distance from the user's best, so that float16 is finest where the softmax is; a constant a user changes nothing.

They are written a block of users at a time. Whoever is cut off goes on behind the last block: the index is the same
each time.

A weighted sum of standardised scores of factor models is an inner product, too, up to a constant a user:

    Σ_k w_k (u_k·i_k − mean) / std = ⟨concat_k (w_k / std_k) u_k, concat_k i_k⟩ − constant,    std_k² = u_kᵀ Σ_k u_k

with Σ_k the covariance of the items' vectors, so that one search makes the lists of a blend.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm

from distill.methods.item_index import BLOCK_USERS, MEASURED_USERS, Ids, ItemIndex, Scores, build_index
from distill.methods.top_lists import TopLists
from distill.storage import write_file

STORED = 200
LARGEST = 60_000.0
"""Of float16, nearly: a distance beyond is no longer told from this one, and is of no weight."""
_ITEMS, _SCORES, _STATE = "items.npy", "scores.npy", "lists.json"


@dataclass(frozen=True)
class Factors:
    """A model whose score is an inner product.

    Attributes:
        users: Of any floating type, shape (|U|, d).
        items: Likewise, shape (|I|, d).
    """

    users: torch.Tensor
    items: torch.Tensor


class Blended:
    """The vectors of a weighted sum of standardised factor models."""

    def __init__(self, members: Sequence[tuple[Factors, float]]) -> None:
        """Concatenate the items, in float16 and balanced, so that their clusters are those of the sum's scores.

        Args:
            members: Models and their weights, at least one.
        """
        self._members = members
        self._spreads = [_covariance(factors.items) for factors, _ in members]
        sample = slice(None, None, max(1, len(members[0][0].users) // MEASURED_USERS))
        norms = [self._scaled(place, sample).norm(dim=1).mean().clamp_min(1e-12) for place in range(len(members))]
        largest = [factors.items.abs().amax().float().clamp_min(1e-12) for factors, _ in members]
        # One factor for all keeps float16 from overflowing; the ratios make users' parts equally long.
        unit = max(float(norm * most) for norm, most in zip(norms, largest, strict=True))
        self._factors = [norm / unit for norm in norms]
        scaled = zip(members, self._factors, strict=True)
        self.items = torch.cat([(factors.items.float() * factor).half() for (factors, _), factor in scaled], dim=1)

    def users(self, rows: slice) -> torch.Tensor:
        """Vectors of users, float32; 0 where no model knows anything of one."""
        parts = [self._scaled(place, rows) / self._factors[place] for place in range(len(self._members))]
        return torch.cat(parts, dim=1)

    def _scaled(self, place: int, rows: slice) -> torch.Tensor:
        factors, weight = self._members[place]
        own = factors.users[rows].float()
        std = ((own @ self._spreads[place]) * own).sum(dim=1).clamp_min(0).sqrt()
        share = torch.where(std > 0, weight / std.clamp_min(torch.finfo(torch.float32).tiny), 0)
        return own * share[:, None]


def _covariance(items: torch.Tensor) -> torch.Tensor:
    """Σ of rows, in float64 until the end."""
    total = torch.zeros(items.shape[1], dtype=torch.float64)
    squares = torch.zeros(items.shape[1], items.shape[1], dtype=torch.float64)
    for part in torch.split(items, 2**16):
        rows = part.double()
        total += rows.sum(dim=0)
        squares += rows.T @ rows
    mean = total / len(items)
    return (squares / len(items) - mean[:, None] * mean).float()


def store_lists(
    folder: Path,
    model: Factors | Blended,
    hidden: sp.csr_matrix,
    unknown: Ids,
    description: Mapping[str, Any],
) -> dict[str, Any]:
    """Make the lists of every user, or go on with them.

    Args:
        folder: Of these lists alone; its name says what they are made of.
        model: Whose scores.
        hidden: What is left out, CSR of shape (|U|, |I|).
        unknown: The order of items for a user without a direction, shape (|I|,).
        description: Of what they are made of.

    Returns:
        What `open_lists` finds: the description, and what there is to know of the index.
    """
    num_users, num_items = hidden.shape
    length = min(STORED, num_items)
    folder.mkdir(parents=True, exist_ok=True)
    done, spent = _progress(folder, (num_users, length))
    items = _open(folder / _ITEMS, np.int32, (num_users, length), fresh=done == 0)
    scores = _open(folder / _SCORES, np.float16, (num_users, length), fresh=done == 0)
    before = time.process_time() - spent
    index = build_index(model.items, _users(model, slice(None, None, max(1, num_users // MEASURED_USERS))), length)
    starts = range(done, num_users, BLOCK_USERS)
    for start in tqdm(starts, desc="listing", unit="block", disable=None, leave=False):
        rows = slice(start, min(start + BLOCK_USERS, num_users))
        found, values = index.search(_users(model, rows), hidden[rows], length, unknown=unknown)
        items[rows], scores[rows] = found, _distances(values)
        items.flush()
        scores.flush()
        state = {"done": rows.stop, "processor_seconds": time.process_time() - before}
        write_file(folder / _STATE, json.dumps(state).encode())
    whole = {**description, "lists": _describe(index, num_users, length, time.process_time() - before)}
    write_file(folder / _STATE, json.dumps({"done": num_users, "description": whole}).encode())
    return whole


def open_lists(folder: Path, num_items: int) -> tuple[TopLists, dict[str, Any]] | None:
    """Map lists, or return None where they are not there, or not yet all of them."""
    try:
        description = json.loads((folder / _STATE).read_text(encoding="utf-8"))["description"]
        items, scores = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (_ITEMS, _SCORES))
    except (OSError, ValueError, KeyError):
        return None
    return TopLists(items, scores, num_items), description


def _users(model: Factors | Blended, rows: slice) -> torch.Tensor:
    return model.users(rows) if isinstance(model, Blended) else model.users[rows].float()


def _progress(folder: Path, shape: tuple[int, int]) -> tuple[int, float]:
    """Users whose lists are there, and the processor seconds that they took."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if all(np.load(folder / name, mmap_mode="r", allow_pickle=False).shape == shape for name in (_ITEMS, _SCORES)):
            return int(state["done"]), float(state["processor_seconds"])
    except (OSError, ValueError, KeyError):
        pass
    return 0, 0.0


def _open(path: Path, kind: type, shape: tuple[int, int], *, fresh: bool) -> Any:
    if fresh:
        return open_memmap(path, "w+", np.dtype(kind), shape)
    return np.load(path, mmap_mode="r+", allow_pickle=False)


def _distances(scores: Scores) -> Scores:
    """How far below the best; what is missing counts as the last one that is there."""
    best = scores[:, :1]
    below = np.where(np.isfinite(scores), scores - np.where(np.isfinite(best), best, 0), np.inf)
    last = np.where(np.isfinite(below), below, 0).min(axis=1, keepdims=True)
    return np.maximum(np.where(np.isfinite(below), below, last), -LARGEST)


def _describe(index: ItemIndex, num_users: int, length: int, seconds: float) -> dict[str, Any]:
    return {
        "length": length,
        "recall": round(index.recall, 4),
        "measured_users": min(MEASURED_USERS, num_users),
        "inverted_lists": len(index.centres),
        "probes": index.probes,
        "bytes": 6 * num_users * length,
        "processor_seconds": round(seconds, 2),
    }


def say_lists(lists: Mapping[str, Any], num_users: int, num_items: int) -> str:
    """A line on lists that an index made."""
    return (
        f"the first {lists['length']} of {num_items:,} items for {num_users:,} users, by inverted lists: "
        f"{lists['recall']:.1%} of what exact ranking finds (measured on {lists['measured_users']} users), "
        f"{lists['processor_seconds']:.0f} processor seconds, {lists['bytes'] / 2**20:,.0f} MiB on disk"
    )
