"""Whose row is whose: ids beside embeddings from elsewhere, and rows put in the order of the data."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill.data.ids import plain_ids
from distill.errors import DataError

PARQUET = {".parquet", ".pq"}
DELIMITERS = {".csv": ",", ".tsv": "\t"}
COLUMNS = ("id", "user_id", "item_id")


def read_ids(path: Path) -> list[str]:
    """Read the ids of rows, in their order.

    Args:
        path: `.npy` of text or whole numbers, Parquet, CSV or TSV with a column `id`, `user_id` or `item_id` (or a
            single one), or else text with an id a line.

    Raises:
        DataError: Unreadable, or it is not told which column holds the ids.
    """
    try:
        if path.suffix == ".npy":
            ids = _read_npy_ids(path)
        elif path.suffix in PARQUET:
            column = _id_column(path, pq.read_schema(path).names)
            ids = pq.read_table(path, columns=[column])[column].to_pylist()
        elif path.suffix in DELIMITERS:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                rows = csv.DictReader(stream, delimiter=DELIMITERS[path.suffix], strict=True)
                column = _id_column(path, rows.fieldnames or [])
                ids = [row[column] for row in rows]
        else:
            ids = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError, EOFError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: unreadable ids ({error}); give an id a line, in the order of the rows") from error
    if None in ids or "" in ids:
        row = next(row for row, value in enumerate(ids) if value in (None, ""))
        raise DataError(f"{path}: id {row + 1} is empty; give an id for each row")
    return [str(value) for value in ids]


def _read_npy_ids(path: Path) -> list[Any]:
    with path.open("rb") as stream:
        ids: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    if ids.ndim != 1 or ids.dtype.kind not in "USiu":
        raise ValueError(f"shape {ids.shape} of {ids.dtype}, where one dimension of text or whole numbers is needed")
    return [value.decode() if isinstance(value, bytes) else value for value in ids.tolist()]


def _id_column(path: Path, names: Sequence[str]) -> str:
    found = [name for name in COLUMNS if name in names] or list(names)
    if len(found) != 1:
        raise DataError(f"{path}: which of the columns {', '.join(names) or '(none)'} holds the ids? name it 'id'")
    return found[0]


def order_rows(path: Path, row_ids: Sequence[str], ids: npt.NDArray[np.str_]) -> tuple[npt.NDArray[np.int64], str]:
    """Find the row of each id of the data.

    Args:
        path: Where `row_ids` were read, for errors.
        row_ids: Id of each row.
        ids: Ids of the data, in its order.

    Returns:
        Row numbers, shape (len(ids),), and what was understood, in words.

    Raises:
        DataError: An id has no row, or two.
    """
    wanted, given = pa.array(ids.tolist(), pa.string()), pa.array(row_ids, pa.string())
    rows = pc.index_in(wanted, given)
    if rows.null_count:
        given = pa.array(plain_ids(given), pa.string())  # spaces and '.0' dropped, as `prepare` does
        rows = pc.index_in(wanted, given)
    distinct = pc.count_distinct(given).as_py()
    if distinct != len(given):
        value, count = Counter(given.to_pylist()).most_common(1)[0]
        raise DataError(
            f"{path}: {len(given) - distinct:,} ids are duplicates, '{value}' stands {count} times; give each id once"
        )
    if rows.null_count:
        first = wanted[pc.index(rows.is_null(), True).as_py()]
        raise DataError(
            f"{path}: lacks {rows.null_count:,} of the data's {len(ids):,} ids, '{first}' first; add their rows"
        )
    left_out = len(given) - len(ids)
    words = f"in order by the ids of {path.name}" + (
        f", {left_out:,} rows of ids the data lacks left out" if left_out else ""
    )
    return rows.to_numpy().astype(np.int64), words
