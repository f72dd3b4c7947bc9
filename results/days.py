"""A data set as it was day by day: all interactions up to a time, prepared as a job would prepare them that day.

The base holds the first half of the interactions, and five days bring a tenth each, as in CCD (arXiv 2405.19046).
ML-100K has times. ML-1M as it is at hand has none: its times are drawn (`draw_times`), so it says what size and noise
do and nothing of how tastes change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.data.interactions import Interactions
from distill.data.prepare import PrepareOptions, prepare
from distill.data.raw_table import RawTable
from distill.data.readers import read_table
from distill.errors import SettingError

BASE_SHARE = 0.5
FIRST_USERS, FIRST_ITEMS = 0.6, 0.9
"""Of drawn times: who is there from the beginning; the others come at a time that is drawn."""


@dataclass(frozen=True)
class DailySource:
    """A public set that is cut into days.

    Attributes:
        format_name: Of its reader.
        options: How each day is prepared.
        has_times: Else they are drawn.
    """

    format_name: str
    options: PrepareOptions
    has_times: bool


DAILY = {
    "ml-100k": DailySource("recbole", PrepareOptions(rating_minimum=4, user_minimum=5, split="temporal"), True),
    "ml-1m": DailySource("lightgcn", PrepareOptions(user_minimum=5, split="temporal"), False),
}


def cut_days(name: str, folder: Path, num_days: int = 5) -> Iterator[Interactions]:
    """Yield the base and each day after it.

    Args:
        name: Of `DAILY`.
        folder: Where the set was downloaded.
        num_days: Days after the base; they bring equally many interactions.

    Raises:
        DataError: The set is unreadable.
        SettingError: There is no such set.
    """
    if name not in DAILY:
        raise SettingError(f"data: '{name}' is not cut into days; give one of {', '.join(DAILY)}")
    source = DAILY[name]
    table = read_table(folder, source.format_name, None, None)
    if not source.has_times:
        table = draw_times(table, np.random.default_rng(0))
    minimum = source.options.rating_minimum
    counted = np.arange(table.num_rows)
    if minimum is not None and table.ratings is not None:
        counted = counted[table.ratings >= minimum]
    times = np.asarray(table.timestamps)[counted]
    in_time = counted[np.argsort(times, kind="stable")]
    for day in range(num_days + 1):
        share = BASE_SHARE + (1 - BASE_SHARE) * day / num_days
        rows = np.sort(in_time[: round(share * len(in_time))])
        yield prepare(take_rows(table, rows), source.options, name=f"{name}-day-{day}")


def draw_times(table: RawTable, rng: np.random.Generator) -> RawTable:
    """Give interactions times: each after its user and its item came, evenly from then to the end."""
    came = [
        np.where(rng.random(len(ids)) < first, 0, rng.random(len(ids)))
        for ids, first in ((table.user_ids, FIRST_USERS), (table.item_ids, FIRST_ITEMS))
    ]
    earliest = np.maximum(came[0][table.user_index], came[1][table.item_index])
    times = earliest + (1 - earliest) * rng.random(table.num_rows)
    return replace(table, timestamps=(times * 1e9).astype(np.int64), splits=None)


def take_rows(table: RawTable, rows: npt.NDArray[np.int64]) -> RawTable:
    """Some rows of a table, without titles."""
    ratings = None if table.ratings is None else table.ratings[rows]
    times = None if table.timestamps is None else table.timestamps[rows]
    return replace(
        table, user_index=table.user_index[rows], item_index=table.item_index[rows], ratings=ratings, timestamps=times,
        item_titles={}, item_categories={},
    )  # fmt: skip


def moved_users(before: Interactions, now: Interactions) -> npt.NDArray[np.bool_]:
    """Which of today's users are new or have new interactions: shape (|U|,)."""
    was, degrees = (
        dict(zip(data.user_ids.tolist(), np.diff((data.train + data.validation + data.test).indptr).tolist(),
                 strict=True))
        for data in (before, now)
    )  # fmt: skip
    return np.array([was.get(user) != degree for user, degree in degrees.items()])
