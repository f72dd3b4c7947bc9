"""Going on from yesterday's run: rows by their outside ids, new ones from their neighbours, and how long to train then.

Who was there yesterday keeps the row that training gave. Of somebody new only the interactions are known: with the
items' vectors y and the interactions N(u),

    x_u = γ m_u,    m_u = (1/|N(u)|) Σ_{i ∈ N(u)} y_i,    γ = Σ_kept ⟨x, m⟩ / Σ_kept ‖m‖²,

the mean of the neighbours at the length that best fits those whose vectors are known, in the least squares. So does a
new item from its users. Items come first, from the users that were kept; then users, from all items with a vector; then
items that new users alone have. A row without such a neighbour keeps the backbone's own draw.

The optimizer starts anew: Adam's moments belong to rows and steps that are gone, and are right again after 1 / (1 − β₂)
= 1,000 steps at the most, β₁'s after ten.

References:
    Lee, Kang, Kweon and Yu, "Continual Collaborative Distillation for Recommender System", KDD 2024, arXiv 2405.19046,
    which also draws new rows from their neighbours. Its replay from proxies of earlier students answers a training on
    the new block alone; here every day trains on all interactions, so that nothing has to be replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.backbones import BACKBONES
from distill.data.interactions import Interactions
from distill.errors import RunError
from distill.run import Run, match_ids, open_run, read_ids

CONTINUED_DEFAULTS: Mapping[str, Any] = {"epochs": 30, "patience": 15, "eval_every": 5, "schedule": "cosine"}
RANDOM_SPLIT = "random"

Matches = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Continued:
    """Yesterday's run, and where today's users and items stand in it.

    Attributes:
        run: Yesterday's.
        user_rows: Row of each of today's users in it, −1 for new ones: shape (|U|,).
        item_rows: Likewise, shape (|I|,).
        doubt: Why today's measures may be too good, or None.
    """

    run: Run
    user_rows: Matches
    item_rows: Matches
    doubt: str | None = None

    def report(self) -> dict[str, Any]:
        """What `metrics.json` says of it."""
        sides = (("users", self.user_rows), ("items", self.item_rows))
        counts = {f"{side}_{word}": int(which.sum()) for side, rows in sides
                  for word, which in (("kept", rows >= 0), ("new", rows < 0))}  # fmt: skip
        return {"from": str(self.run.path), **counts, "doubt": self.doubt}

    def rows(self, train: sp.csr_matrix, users: Rows, items: Rows) -> tuple[Rows, Rows]:
        """Put yesterday's rows into today's table, and make those of new users and items.

        Args:
            train: Today's training interactions, CSR of shape (|U|, |I|).
            users: Fresh rows, shape (|U|, d): what stays where nothing is known.
            items: Likewise, shape (|I|, d).

        Returns:
            Users and items in the same shapes.
        """
        users, items = users.copy(), items.copy()
        kept_users, kept_items = self.user_rows >= 0, self.item_rows >= 0
        users[kept_users] = self.run.user_embeddings[self.user_rows[kept_users]]
        items[kept_items] = self.run.item_embeddings[self.item_rows[kept_items]]
        takers = sp.csr_matrix(train.T)
        placed = place_new_rows(items, kept_items, users, kept_users, takers)
        known_users = kept_users | place_new_rows(users, kept_users, items, kept_items | placed, train)
        place_new_rows(items, kept_items | placed, users, known_users, takers)
        return users, items


def open_continued(path: Path, backbone: str, method: str, dim: int, data: Interactions) -> Continued:
    """Read yesterday's run, and find today's users and items in it.

    Args:
        path: The run directory.
        backbone: What is trained today, as the three below: yesterday's must be the same.
        method: A method or a composition.
        dim: d.
        data: Today's.

    Raises:
        RunError: It is no finished run, has no ids, is of another kind, or has nobody in common with the data.
    """
    if not BACKBONES[backbone].is_table:
        tables = ", ".join(name for name, kind in BACKBONES.items() if kind.is_table)
        raise RunError(
            f"{path}: backbone '{backbone}' makes its embeddings of a table, and a run keeps the embeddings alone; "
            f"train it from nothing, without --continue-from, or take a backbone that can go on: {tables}"
        )
    run = open_run(path)
    for name, wanted in (("backbone", backbone), ("method", method), ("dim", dim)):
        if run.config.get(name) != wanted:
            raise RunError(
                f"{path}: its {name} is {run.config.get(name)!r} and not {wanted!r}; give --{name} "
                f"{run.config.get(name)}, or train from nothing, without --continue-from"
            )
    user_ids, item_ids = read_ids(run)
    continued = Continued(run, match_ids(user_ids, data.user_ids), match_ids(item_ids, data.item_ids), _doubt(data))
    for kind, rows in (("user", continued.user_rows), ("item", continued.item_rows)):
        if not (rows >= 0).any():
            raise RunError(
                f"{path}: has no {kind} id in common with data set '{data.name}', so there is nothing to go on from; "
                "give the run of the same ids, or train from nothing, without --continue-from"
            )
    return continued


def _doubt(data: Interactions) -> str | None:
    if data.settings.get("split") != RANDOM_SPLIT:
        return None
    return (
        "the data is split at random, so what is held out today may have been learned yesterday, and quality looks "
        "better than it is; prepare with --split temporal or ordered"
    )


def place_new_rows(
    rows: Rows, is_known: npt.NDArray[np.bool_], others: Rows, are_known: npt.NDArray[np.bool_], taken: sp.csr_matrix
) -> npt.NDArray[np.bool_]:
    """Write γ times the mean of the known neighbours into the rows that are not known.

    Args:
        rows: Shape (R, d), changed in place.
        is_known: Which of them are known, by which γ is fitted: shape (R,).
        others: Vectors of the other side, shape (N, d).
        are_known: Which of them count, shape (N,).
        taken: CSR of ones, shape (R, N).

    Returns:
        Which rows were written: not known before, with a known neighbour. Shape (R,).
    """
    if is_known.all():
        return np.zeros_like(is_known)
    counts = taken @ are_known.astype(np.float32)
    means = taken @ np.where(are_known[:, None], others, 0).astype(np.float32)
    means /= np.maximum(counts, 1)[:, None]
    fitted = is_known & (counts > 0)
    length = float(np.einsum("rd,rd->", means[fitted], means[fitted], dtype=np.float64))
    is_new = ~is_known & (counts > 0)
    if length:
        rows[is_new] = means[is_new] * (np.einsum("rd,rd->", rows[fitted], means[fitted], dtype=np.float64) / length)
    return is_new if length else np.zeros_like(is_known)
