"""Whom quality is measured on: all users with relevant items, or a drawn sample of them where all would take hours.

A sample depends on the data and on nothing else, so that all models of a data set are measured on the same users and
tests that are paired over users stay so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distill.errors import SettingError
from distill.evaluation.metrics import Rows, Values

MOST_SCORES = 10**9
"""Users × items up to which all users are ranked: a minute or less on one core."""
LEAST_USERS = 5_000
"""Drawn however many items there are: a metric between 0 and 1 has then a standard error of at most 0.007, as a rule of
0.002 to 0.005, and the difference of two models, which is taken over the same users, has less."""
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Sample:
    """The users that are ranked.

    Attributes:
        users: Row numbers, rising, shape (B,).
        num_relevant: How many users have relevant items in all.
    """

    users: Rows
    num_relevant: int

    @property
    def is_drawn(self) -> bool:
        """Whether users with relevant items were left out."""
        return len(self.users) < self.num_relevant

    @property
    def words(self) -> str:
        """Who they are: "users with relevant items", with the numbers where they were drawn."""
        whom = "users with relevant items"
        if not self.is_drawn:
            return whom
        return f"{len(self.users):,} of {self.num_relevant:,} {whom}, drawn with seed {SAMPLE_SEED}"

    def standard_error(self, values: Values) -> float:
        """Say how far a mean over the drawn users is likely to be from that over all (Cochran, 1977, eq. 2.25).

        Args:
            values: Of each drawn user, shape (B,), B > 1.
        """
        drawn = 1 - len(values) / self.num_relevant  # what is left of the error once most are drawn
        return float(np.std(values, ddof=1) * np.sqrt(drawn / len(values)))


def draw_users(num_relevant: npt.NDArray[np.integer], num_items: int, eval_users: int | None = None) -> Sample:
    """Choose the users to rank for.

    They are the first that have relevant items in one drawn order of all users: a smaller sample is part of a larger
    one, and samples of two splits have most users in common.

    Args:
        num_relevant: Relevant items of each user, shape (|U|,).
        num_items: |I|.
        eval_users: At most so many. When None all, up to `MOST_SCORES` scores; beyond, as many as make so many
            scores, `LEAST_USERS` or more.

    Raises:
        SettingError: `eval_users` is below 2.
    """
    if eval_users is not None and eval_users < 2:
        raise SettingError(f"eval_users: {eval_users} is below 2, and one user has no spread")
    there = np.flatnonzero(num_relevant).astype(np.int64)
    most = max(LEAST_USERS, MOST_SCORES // max(num_items, 1)) if eval_users is None else eval_users
    if len(there) <= most:
        return Sample(there, len(there))
    rng = np.random.default_rng(SAMPLE_SEED)
    order = rng.permutation(len(num_relevant))
    return Sample(np.sort(order[num_relevant[order] > 0][:most]), len(there))
