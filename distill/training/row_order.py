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
ID_KINDS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_null,
)


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
            ids = read_id_column(path, pq.read_table(path, columns=[column])[column])
        elif path.suffix in DELIMITERS:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                rows = csv.DictReader(stream, delimiter=DELIMITERS[path.suffix], strict=True)
                column = _id_column(path, rows.fieldnames or [])
                ids = [row[column] for row in rows]
        else:
            ids = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError, EOFError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: unreadable ids ({error}); give an id a line, in the order of the rows") from error
    return _as_text(path, ids)


def read_id_column(path: Path, column: pa.ChunkedArray) -> list[str]:
    """Read ids from a column of Parquet, as text, in their order.

    Raises:
        DataError: One is empty, or the column holds neither text nor numbers.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):  # text, of writers that do not say so
        column = column.cast(pa.large_string())
    elif pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    elif not any(check(kind) for check in ID_KINDS):
        raise DataError(f"{path}: ids are of type {kind}, where text or whole numbers are needed; write them as text")
    return _as_text(path, column.to_pylist())


def _as_text(path: Path, ids: Sequence[Any]) -> list[str]:
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
    found = [name for name in names if name in COLUMNS] or list(names)
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
