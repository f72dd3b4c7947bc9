"""How far today's model is from yesterday's: how much of their lists they share, and who came and went.

A model that went on from yesterday's says nearly the same of most users. One that says something else altogether is
broken (rows in another order, a training that ran away, other data), whatever its metrics on the users that are left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.metrics import overlap
from distill.evaluation.ranking import rank_items
from distill.evaluation.sample import draw_users
from distill.run import Run, match_ids, read_ids

CUTOFF = 20
SPARED = 10
"""Common items for each place of a list, at the least: chance alone then fills no more than a tenth of it."""
LEAST_OVERLAP = 0.3
"""Overlap@20 below which a model is not yesterday's any more."""


@dataclass(frozen=True)
class Drift:
    """Two models of one kind, a day apart.

    Attributes:
        overlap: Mean share of a user's k best items that both models have among theirs.
        standard_error: Of that mean; 0 where all common users were asked.
        k: Length of the lists.
        users: Common users whose lists were compared.
        users_kept: Users of both.
        users_lost: Yesterday's users that today's model does not know, over all of yesterday's.
        users_new: Today's users that yesterday's model did not know, over all of today's.
        items_kept: Items of both, of which the lists are.
        items_lost: As of users.
        items_new: As of users.
    """

    overlap: float
    standard_error: float
    k: int
    users: int
    users_kept: int
    users_lost: float
    users_new: float
    items_kept: int
    items_lost: float
    items_new: float

    @property
    def is_catastrophic(self) -> bool:
        """Whether the lists have less in common than any good day leaves."""
        return self.overlap < LEAST_OVERLAP

    def as_dict(self) -> dict[str, Any]:
        """What `metrics.json` keeps, shares of six digits."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        error = f" ± {self.standard_error:.3f}" if self.standard_error else ""
        return (
            f"overlap@{self.k} with yesterday's lists {self.overlap:.3f}{error} over {self.users:,} users; "
            f"users: {self.users_lost:.1%} lost, {self.users_new:.1%} new; "
            f"items: {self.items_lost:.1%} lost, {self.items_new:.1%} new"
        )


def measure_drift(
    old_run: Run, new_run: Run, data: Interactions, k: int | None = None, *, eval_users: int | None = None
) -> Drift:
    """Compare the lists of two runs for the users and items of both, today's training items left out of both.

    Args:
        old_run: Yesterday's, with its ids.
        new_run: Today's.
        data: What today's was trained on.
        k: Length of the lists; when None 20, or a tenth of the common items where they are fewer.
        eval_users: At most so many users, drawn; when None all up to 10⁹ scores, as quality is measured.

    Raises:
        RunError: Yesterday's run has no ids, or today's belongs to other data.
        SettingError: `k` is below 1, or there is no user or no item of both.
    """
    new_run.require_same_data(data)
    today = (new_run.user_embeddings, new_run.item_embeddings)
    return compare_lists(old_run, today, data, k, eval_users=eval_users)


def compare_lists(
    old_run: Run,
    today: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    data: Interactions,
    k: int | None = None,
    *,
    eval_users: int | None = None,
) -> Drift:
    """Do what `measure_drift` does, of users' and items' embeddings that are no run yet: shapes (|U|, d), (|I|, d)."""
    user_ids, item_ids = read_ids(old_run)
    rows = match_ids(user_ids, data.user_ids), match_ids(item_ids, data.item_ids)
    before = (old_run.user_embeddings, old_run.item_embeddings)
    try:
        return compare_rows(before, rows, today, data, k, eval_users=eval_users)
    except SettingError as error:
        raise SettingError(f"{old_run.path}: {error}") from error


def compare_rows(
    old: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    today: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    data: Interactions,
    k: int | None = None,
    *,
    eval_users: int | None = None,
) -> Drift:
    """Do what `measure_drift` does, of embeddings whose rows are matched already.

    Args:
        old: Yesterday's users and items.
        rows: Of each of today's users in them, −1 for new ones, shape (|U|,); likewise of items.
        today: Shapes (|U|, d), (|I|, d).
        data: What today's was trained on.
        k: As of `measure_drift`.
        eval_users: Likewise.

    Raises:
        SettingError: `k` is below 1, or there is no user or no item of both.
    """
    if k is not None and k < 1:
        raise SettingError(f"k: {k} is below 1")
    user_rows, item_rows = rows
    users, items = np.flatnonzero(user_rows >= 0), np.flatnonzero(item_rows >= 0)
    if not len(users) or not len(items):
        raise SettingError(f"no users or no items in common with data set '{data.name}'")
    k = max(1, min(CUTOFF, len(items) // SPARED)) if k is None else min(k, len(items))
    hidden = sp.csr_matrix(data.train[users][:, items])
    free = len(items) - np.diff(hidden.indptr)
    sample = draw_users(np.where(free >= k, free, 0), len(items), eval_users)
    asked = sample.users if len(sample.users) else np.arange(len(users), dtype=np.int64)
    before = rank_items(
        np.asarray(old[0][user_rows[users]], np.float32), np.asarray(old[1][item_rows[items]], np.float32),
        hidden, asked, k,
    )  # fmt: skip
    now = rank_items(np.asarray(today[0][users], np.float32), np.asarray(today[1][items], np.float32), hidden, asked, k)
    shared = overlap(list(before), list(now))
    return Drift(
        overlap=float(shared.mean()),
        standard_error=sample.standard_error(shared) if sample.is_drawn else 0.0,
        k=k,
        users=len(asked),
        users_kept=len(users),
        users_lost=1 - len(users) / len(old[0]),
        users_new=1 - len(users) / data.num_users,
        items_kept=len(items),
        items_lost=1 - len(items) / len(old[1]),
        items_new=1 - len(items) / data.num_items,
    )
