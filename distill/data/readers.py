"""Readers of public formats of interaction data: `read_table` picks one of `READERS`, a small function each.

A reader takes a path and the user's column names (formats without named columns ignore them) and returns a
`RawTable` in file order, with a `Reading` that says what was read as what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distill.data.delimited import read_delimited
from distill.data.ids import encode_ids
from distill.data.item_metadata import ITEM_COLUMNS, ItemMetadata, read_metadata_beside
from distill.data.parquet import find_parts, read_parquet
from distill.data.raw_table import RawTable
from distill.data.reading import Reading
from distill.data.sources import Source, find_ready_split, fits, matching, open_source
from distill.data.tabular import Tabular
from distill.data.text import find_file, plain_name, read_text
from distill.data.token_lines import TokenLines, has_lists, read_token_lines, read_triple_lines
from distill.errors import DataError

USER_COLUMNS = ("user_id", "userId", "user")
RATING_COLUMNS = ("rating",)
TIMESTAMP_COLUMNS = ("timestamp",)
MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns to read; None takes a usual name, where the file has it.

    Attributes:
        user: Name of the column of user ids; so are the three below.
        item: Of item ids.
        rating: Of ratings.
        timestamp: Of times.
        ids_as_written: Keep spaces around ids and '.0', and take words for missing values as ids.
    """

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    timestamp: str | None = None
    ids_as_written: bool = False


Reader = Callable[[Path, ColumnNames], RawTable]


def read_table(
    path: Path,
    format_name: str | None = None,
    columns: ColumnNames | None = None,
    metadata: ItemMetadata | None = None,
) -> RawTable:
    """Read interactions from a file, or from the files of a set.

    Args:
        path: A file, or a directory that holds the files of a set.
        format_name: A key of `READERS`; told by the name when None.
        columns: Names of the columns, where the format has names.
        metadata: Item titles and categories to take in place of the source's own.

    Raises:
        DataError: The source is missing, malformed or without interactions.
    """
    name = format_name or detect_format(path)
    if name not in READERS:
        raise DataError(f"--format: unknown format '{name}'; give one of {', '.join(READERS)}")
    try:
        table = READERS[name][0](path, columns or ColumnNames())
    except pa.ArrowException as error:
        # Types that nothing above converts.
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: unreadable as {name} ({reason}); store ids as strings, times as timestamps"
        ) from error
    # What was text is numbers by now, and Arrow would keep its memory.
    pa.default_memory_pool().release_unused()
    if not table.num_rows:
        raise DataError(f"{path}: no interactions in it; give a file that has some")
    if metadata is not None:
        reading = table.reading and replace(table.reading, notes=(*table.reading.notes, *metadata.notes))
        table = replace(table, item_titles=metadata.titles, item_categories=metadata.categories, reading=reading)
    return table


def detect_format(path: Path) -> str:
    """Tell the format, a key of `READERS`, by the name of the file, or by the files of a directory.

    Raises:
        DataError: `path` is not there, no format fits, or several do.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or directory; check the path, or get a set by 'lowpass data fetch'")
    names = [name for name, (_, pattern) in READERS.items() if _has(path, pattern)]
    # MovieLens 1M has a `users.dat` too.
    if "movielens-dat" in names and "citeulike" in names:
        names.remove("citeulike")
    if names == ["lightgcn", "triples"]:
        return "lightgcn" if _is_lists(path) else "triples"
    if len(names) > 1:
        raise DataError(f"{path}: its files fit several formats; give one by --format {'|'.join(names)}")
    if not names:
        raise DataError(f"{path}: cannot tell its format by its name; give --format {'|'.join(READERS)}")
    return names[0]


def _has(path: Path, pattern: str) -> bool:
    if path.is_file():
        return fits(path, pattern)
    return bool(matching(path, pattern)) or (pattern == "*.parquet" and bool(find_parts(path)))


def _is_lists(path: Path) -> bool:
    folder = path if path.is_dir() else path.parent
    if any(find_file(folder, name).is_file() for name in ("user_list.txt", "item_list.txt")):
        return True
    split = find_ready_split(folder, matching(folder, "*.txt")) or {}
    return has_lists([file for files in split.values() for file in files])


def read_citeulike(path: Path, columns: ColumnNames) -> RawTable:
    """Read citeulike `users.dat`: line = user, "n item item ...".

    A user's id is the line's number, from 1; items keep the order of the line.

    Raises:
        DataError: A line is empty, or its count is not the number of items after it.
    """
    del columns
    lines = read_token_lines(_inside(path, "users.dat"))
    claimed = lines.firsts.to_pylist()
    for row, (text, found) in enumerate(zip(claimed, lines.num_rest.tolist(), strict=True)):
        if not text.isdecimal() or int(text) != found:
            raise DataError(
                f"{lines.path}: line {lines.numbers[row]}: starts with '{text[:40]}' but {found} items "
                "follow; give citeulike's users.dat, or another --format"
            )
    lines.require_integers()
    users = pa.array(lines.numbers).cast(pa.string()).take(pa.array(lines.owner))
    locate = _locate_token([lines])
    user_ids = encode_ids(users, locate, "user")
    item_ids = encode_ids(lines.rest, locate, "item")
    taken = {"user": "number of the line", "item": "all fields but the first"}
    reading = Reading(path, "citeulike", (lines.path.name,), taken, locate=locate)
    return RawTable(user_ids.ids, item_ids.ids, user_ids.index, item_ids.index, reading=reading)


def read_lightgcn(path: Path, columns: ColumnNames) -> RawTable:
    """Read a LightGCN directory: `train.txt`, `test.txt`, perhaps `valid.txt`; line = "user item item ...".

    The split is kept as it is. Where `user_list.txt` / `item_list.txt` ("org_id remap_id") are there,
    original ids replace the numbers.

    Raises:
        DataError: A file is missing, a token is not a number, or a number is not in its list.
    """
    del columns
    folder = path if path.is_dir() else path.parent
    split = find_ready_split(folder, matching(folder, "*.txt"))
    if split is None:
        raise DataError(f"{folder}: no train.txt in it; give the folder that has train.txt and test.txt")
    parts = [(part, read_token_lines(file)) for part, files in split.items() for file in files]
    for _, lines in parts:
        lines.require_integers()
    locate = _locate_token([lines for _, lines in parts])
    users = pa.concat_arrays([lines.firsts.take(pa.array(lines.owner)) for _, lines in parts])
    user_ids = encode_ids(users, locate, "user")
    item_ids = encode_ids(pa.concat_arrays([lines.rest for _, lines in parts]), locate, "item")
    reading = Reading(
        folder,
        "lightgcn",
        tuple(lines.path.name for _, lines in parts),
        {"user": "first field", "item": "all other fields"},
        notes=tuple(note for _, lines in parts for note in lines.note_repeats()),
        locate=locate,
    )
    return RawTable(
        read_id_list(find_file(folder, "user_list.txt"), user_ids.ids),
        read_id_list(find_file(folder, "item_list.txt"), item_ids.ids),
        user_ids.index,
        item_ids.index,
        splits=np.repeat(
            np.array([part for part, _ in parts], dtype=np.int8), [len(lines.owner) for _, lines in parts]
        ),
        has_validation=1 in split,
        reading=reading,
    )


def read_triples(path: Path, columns: ColumnNames) -> RawTable:
    """Read lines of `user item`, `user item rating` or `user item rating time`, parted by white space, no header.

    A directory, or its `train.txt`, is a split that is ready, as for LightGCN; another file is read alone.

    Raises:
        DataError: A line or a value is malformed.
    """
    folder = path.parent if path.is_file() and plain_name(path).lower() == "train.txt" else path
    source = open_source(folder, "*.txt", read_triple_lines)
    return _from_columns(source, "triples", ColumnNames(ids_as_written=columns.ids_as_written))


def read_recbole(path: Path, columns: ColumnNames) -> RawTable:
    """Read a RecBole atomic `.inter` file (tab separated, header "name:type") and the `.item` beside it.

    Raises:
        DataError: The header or a value is malformed, or a column is missing.
    """
    source = open_source(path, "*.inter", partial(read_delimited, delimiter="\t", typed_header=True))
    # Of `NAME.inter`, and of a split's `NAME.train.inter`.
    name = source.files[0].split(".")[0]
    return _from_columns(source, "recbole", columns, find_file(_folder(path), f"{name}.item"))


def read_ml_100k(path: Path, columns: ColumnNames) -> RawTable:
    """Read MovieLens `u.data` (tab separated, no header) and the `u.item` beside it.

    Raises:
        DataError: A line or a value is malformed.
    """
    source = open_source(path, "u.data", partial(read_delimited, delimiter="\t", names=MOVIELENS_COLUMNS))
    return _from_columns(source, "movielens-data", columns, find_file(_folder(path), "u.item"))


def read_ml_1m(path: Path, columns: ColumnNames) -> RawTable:
    """Read MovieLens `ratings.dat` ("::" separated, no header) and the `movies.dat` beside it.

    Raises:
        DataError: A line or a value is malformed.
    """
    source = open_source(path, "ratings.dat", partial(read_delimited, delimiter="::", names=MOVIELENS_COLUMNS))
    return _from_columns(source, "movielens-dat", columns, find_file(_folder(path), "movies.dat"))


def read_csv(path: Path, columns: ColumnNames) -> RawTable:
    """Read comma separated values with a header line.

    Raises:
        DataError: A line or a value is malformed, or a column is missing.
    """
    source = open_source(path, "*.csv", partial(read_delimited, delimiter=",", quotes="always"))
    return _from_columns(source, "csv", columns)


def read_tsv(path: Path, columns: ColumnNames) -> RawTable:
    """Read tab separated values with a header line; quotes count as in CSV where all that open are closed.

    Raises:
        DataError: A line or a value is malformed, or a column is missing.
    """
    source = open_source(path, "*.tsv", partial(read_delimited, delimiter="\t", quotes="consistent"))
    return _from_columns(source, "tsv", columns)


def read_parquet_file(path: Path, columns: ColumnNames) -> RawTable:
    """Read a Parquet file, or a folder of its parts or partitions.

    Raises:
        DataError: The file is unreadable, a value is missing, or a column is.
    """
    return _from_columns(open_source(path, "*.parquet", read_parquet), "parquet", columns)


READERS: dict[str, tuple[Reader, str]] = {
    "lightgcn": (read_lightgcn, "train.txt"),
    "triples": (read_triples, "train.txt"),
    "recbole": (read_recbole, "*.inter"),
    "movielens-dat": (read_ml_1m, "ratings.dat"),
    "movielens-data": (read_ml_100k, "u.data"),
    "citeulike": (read_citeulike, "users.dat"),
    "csv": (read_csv, "*.csv"),
    "tsv": (read_tsv, "*.tsv"),
    "parquet": (read_parquet_file, "*.parquet"),
}
"""Format → (reader, name of the file that tells it)."""


def read_id_list(path: Path, numbers: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """Replace LightGCN's numbers by the original ids of a `user_list.txt` or `item_list.txt`.

    Args:
        path: The list: a header with `org_id` and `remap_id`, then a line per id. Need not be there.
        numbers: Numbers as text, shape (n,).

    Returns:
        Original ids, shape (n,); `numbers` itself where there is no list.

    Raises:
        DataError: The list is malformed, names an original id twice, or lacks a number.
    """
    if not path.is_file():
        return numbers
    header, *lines = read_text(path).removesuffix("\n").split("\n")
    columns = header.split()
    if "org_id" not in columns or "remap_id" not in columns:
        raise DataError(f"{path}: line 1: expected the header 'org_id remap_id'; add it, or remove the file")
    original, remapped = columns.index("org_id"), columns.index("remap_id")
    names: dict[str, str] = {}
    for line_number, line in enumerate(lines, start=2):
        fields = line.split()
        if len(fields) != len(columns):
            raise DataError(
                f"{path}: line {line_number}: {len(fields)} fields, expected {len(columns)}; correct the line"
            )
        names[fields[remapped]] = fields[original]
    if len(set(names.values())) < len(lines):
        raise DataError(f"{path}: an id is given twice; correct it, or remove the file to keep the numbers")
    missing = next((number for number in numbers.tolist() if number not in names), None)
    if missing is not None:
        raise DataError(f"{path}: no remap_id {missing}; add it, or remove the file to keep the numbers")
    return np.asarray([names[number] for number in numbers.tolist()], dtype=np.str_)


def _inside(path: Path, name: str) -> Path:
    return find_file(path, name) if path.is_dir() else path


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _locate_token(parts: list[TokenLines]) -> Callable[[int], str]:
    def locate(row: int) -> str:
        for lines in parts:
            if row < len(lines.owner):
                return f"{lines.path.name}: line {lines.numbers[lines.owner[row]]}"
            row -= len(lines.owner)
        return f"row {row + 1}"

    return locate


def _from_columns(source: Source, format_name: str, names: ColumnNames, beside: Path | None = None) -> RawTable:
    """Make a table of named columns, with the titles that stand beside."""
    table, as_written = source.table, names.ids_as_written
    columns = _choose_columns(table, names)
    metadata = read_metadata_beside(beside, ids_as_written=as_written) if beside else ItemMetadata()
    users = encode_ids(table.strings(columns["user"]), table.where, "user", as_written=as_written)
    items = encode_ids(table.strings(columns["item"]), table.where, "item", as_written=as_written)
    times, unit, rounding = table.times(columns["timestamp"]) if "timestamp" in columns else (None, None, ())
    reading = Reading(
        table.path,
        format_name,
        source.files,
        columns,
        table.locate,
        tuple(column for column in table.columns if column not in columns.values()),
        source.unread_files,
        unit,
        (
            *table.notes,
            *table.note_floats(columns["user"]),
            *table.note_floats(columns["item"]),
            *users.notes,
            *items.notes,
            *rounding,
            *metadata.notes,
        ),
    )
    return RawTable(
        users.ids,
        items.ids,
        users.index,
        items.index,
        ratings=table.numbers(columns["rating"]) if "rating" in columns else None,
        timestamps=times,
        splits=source.splits,
        has_validation=source.has_validation,
        item_titles=metadata.titles,
        item_categories=metadata.categories,
        reading=reading,
    )


def _choose_columns(table: Tabular, names: ColumnNames) -> dict[str, str]:
    """Return role → column, of those that the table has."""
    roles = {
        "user": (names.user, USER_COLUMNS),
        "item": (names.item, ITEM_COLUMNS),
        "rating": (names.rating, RATING_COLUMNS),
        "timestamp": (names.timestamp, TIMESTAMP_COLUMNS),
    }
    found = {role: table.find(*wanted, option=f"--{role}-column") for role, wanted in roles.items()}
    for role in ("user", "item"):
        if found[role] is None:
            raise DataError(
                f"{table.path}: no {role} column among {', '.join(table.columns)}; {table.remedy_for_none(role)}"
            )
    return {role: column for role, column in found.items() if column is not None}
