"""What a rank reads of the data: its own users' rows, its own items' columns, and never the whole.

A rank is in charge of one range of users and one of items. Entities of a range are numbered from 0, its users first;
the table's rows are numbered as everywhere, all users first. `interactions.parquet` is read by each rank, a batch of
rows at a time, and what is another's is dropped at once: in memory is what a rank's users and items have, and a count a
user and an item.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from distill.data.interactions import FORMAT, SPLITS, build_user_items
from distill.distributed.ranks import Ranks
from distill.errors import DataError

Range: TypeAlias = "slice[int, int, None]"
Counts = npt.NDArray[np.int64]
BATCH_ROWS = 2**20
COLUMNS = ("user_index", "item_index", "split")


@dataclass(frozen=True)
class Share:
    """One rank's part of a data directory.

    Attributes:
        name: Of the data set.
        fingerprint: Of the whole data.
        num_users: |U|.
        num_items: |I|.
        users: Range of the rank's users.
        items: Range of its items.
        train: Of its users, CSR of ones, shape (its users, |I|); so are the two below.
        validation: Held out for early stopping.
        test: Held out for the final report.
        item_users: Training interactions of its items, CSR of ones, shape (its items, |U|).
        user_counts: Training interactions of each user of all ranks, shape (|U|,).
        item_counts: The same of each item, shape (|I|,).
    """

    name: str
    fingerprint: str
    num_users: int
    num_items: int
    users: Range
    items: Range
    train: sp.csr_matrix
    validation: sp.csr_matrix
    test: sp.csr_matrix
    item_users: sp.csr_matrix
    user_counts: Counts
    item_counts: Counts

    @property
    def num_entities(self) -> int:
        """N = |U| + |I|."""
        return self.num_users + self.num_items

    @property
    def num_own_users(self) -> int:
        """Users of this rank."""
        return self.users.stop - self.users.start

    @property
    def num_own(self) -> int:
        """Users and items of this rank."""
        return self.num_own_users + self.items.stop - self.items.start

    def table_rows(self, own: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Translate the rank's entity numbers to rows of the table, int64 of the same shape."""
        first_item = self.num_users + self.items.start - self.num_own_users
        rows: npt.NDArray[np.int64] = own + np.where(own < self.num_own_users, self.users.start, first_item)
        return rows


def read_share(directory: Path, ranks: Ranks) -> Share:
    """Read what this rank needs of a data directory.

    Raises:
        DataError: A file is missing or unreadable.
    """
    description_path = directory / "dataset.json"
    if not description_path.is_file():
        raise DataError(f"{directory}: no dataset.json there; make a data directory with 'lowpass data prepare'")
    try:
        description = json.loads(description_path.read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']}, this version reads {FORMAT}")
        num_users, num_items = (int(description["counts"][name]) for name in ("users", "items"))
        users, items = ranks.share(num_users), ranks.share(num_items)
        own, columns, counts = _read(directory / "interactions.parquet", users, items, (num_users, num_items))
        if counts[0].sum() != description["counts"]["train"]:
            raise ValueError("interactions.parquet has not the training interactions that dataset.json counts")
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(
            f"{directory}: unreadable data directory ({error}); run 'lowpass data prepare' again"
        ) from error
    shape = (users.stop - users.start, num_items)
    train, validation, test = (
        build_user_items(own[0][own[2] == number] - users.start, own[1][own[2] == number], shape)
        for number in range(len(SPLITS))
    )
    item_users = build_user_items(columns[1] - items.start, columns[0], (items.stop - items.start, num_users))
    name, fingerprint = str(description["name"]), str(description["fingerprint"])
    return Share(name, fingerprint, num_users, num_items, users, items, train, validation, test, item_users, *counts)


def _read(
    path: Path, users: Range, items: Range, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[Counts, Counts]]:
    """(user, item, split) of the users of a range, of the training interactions of the items of one, and all counts."""
    own, columns = [np.empty((3, 0), dtype=np.int64)], [np.empty((3, 0), dtype=np.int64)]
    counts = np.zeros(shape[0], dtype=np.int64), np.zeros(shape[1], dtype=np.int64)
    for rows in _batches(path):
        trained = rows[:, rows[2] == 0]
        for total, row in zip(counts, trained, strict=False):
            np.add(total, np.bincount(row, minlength=len(total)), out=total)
        own.append(rows[:, (rows[0] >= users.start) & (rows[0] < users.stop)])
        columns.append(trained[:, (trained[1] >= items.start) & (trained[1] < items.stop)])
    return np.concatenate(own, axis=1), np.concatenate(columns, axis=1), counts


def _batches(path: Path) -> Iterator[npt.NDArray[np.int64]]:
    with pq.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=list(COLUMNS)):
            yield np.stack([batch[name].to_numpy().astype(np.int64) for name in COLUMNS])
