"""Readers of public formats of interaction data: `read_table` picks one of `READERS`, a small function each.

A reader takes a path and the user's column names (formats without named columns ignore them) and returns a
`RawTable` in file order. citeulike and LightGCN share `TokenLines`, text whose lines are "first rest rest ...".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from distill.data.item_metadata import ITEM_COLUMNS, ItemMetadata, read_metadata_beside
from distill.data.raw_table import RawTable
from distill.data.tabular import Tabular, encode_ids, read_delimited, read_parquet, read_text
from distill.errors import DataError

USER_COLUMNS = ("user_id", "userId", "user")
RATING_COLUMNS = ("rating",)
TIMESTAMP_COLUMNS = ("timestamp",)
MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns to read; None takes a usual name, where the file has it."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    timestamp: str | None = None


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
    reader, pattern = READERS[name]
    if path.is_dir() and name != "lightgcn":
        path = _inside(path, pattern)
    table = reader(path, columns or ColumnNames())
    if not table.num_rows:
        raise DataError(f"{path}: no interactions in it; give a file that has some")
    if metadata is not None:
        table = replace(table, item_titles=metadata.titles, item_categories=metadata.categories)
    return table


def detect_format(path: Path) -> str:
    """Tell the format, a key of `READERS`, by the name of the file, or by the files of a directory.

    Raises:
        DataError: `path` is not there, or no format fits.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or directory; check the path, or get a set by 'lowpass data fetch'")
    for name, (_, pattern) in READERS.items():
        if (path.is_dir() and any(path.glob(pattern))) or (path.is_file() and path.match(pattern)):
            return name
    raise DataError(f"{path}: cannot tell its format by its name; give --format {'|'.join(READERS)}")


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
    return _table(lines.path, users, lines.rest)


def read_lightgcn(path: Path, columns: ColumnNames) -> RawTable:
    """Read a LightGCN directory: `train.txt`, `test.txt`, perhaps `valid.txt`; line = "user item item ...".

    The split is kept as it is. Where `user_list.txt` / `item_list.txt` ("org_id remap_id") are there,
    original ids replace the numbers.

    Raises:
        DataError: A file is missing, a token is not a number, or a number is not in its list.
    """
    del columns
    folder = path if path.is_dir() else path.parent
    names = ["train.txt", "valid.txt", "test.txt"]
    has_validation = (folder / "valid.txt").is_file()
    parts: dict[int, TokenLines] = {
        number: read_token_lines(folder / name)
        for number, name in enumerate(names)
        if has_validation or name != "valid.txt"
    }
    for part in parts.values():
        part.require_integers()
    users = pa.concat_arrays([part.firsts.take(pa.array(part.owner)) for part in parts.values()])
    items = pa.concat_arrays([part.rest for part in parts.values()])
    user_ids, user_index = encode_ids(users, folder)
    item_ids, item_index = encode_ids(items, folder)
    return RawTable(
        read_id_list(folder / "user_list.txt", user_ids),
        read_id_list(folder / "item_list.txt", item_ids),
        user_index,
        item_index,
        splits=np.repeat(np.array(list(parts), dtype=np.int8), [len(part.owner) for part in parts.values()]),
        has_validation=has_validation,
    )


def read_recbole(path: Path, columns: ColumnNames) -> RawTable:
    """Read a RecBole atomic `.inter` file (tab separated, header "name:type") and the `.item` beside it.

    Raises:
        DataError: The header or a value is malformed, or a column is missing.
    """
    path = _inside(path, "*.inter")
    source = read_delimited(path, "\t", typed_header=True)
    return _from_columns(source, columns, read_metadata_beside(path.with_suffix(".item")))


def read_ml_100k(path: Path, columns: ColumnNames) -> RawTable:
    """Read MovieLens `u.data` (tab separated, no header) and the `u.item` beside it.

    Raises:
        DataError: A line or a value is malformed.
    """
    path = _inside(path, "u.data")
    source = read_delimited(path, "\t", names=MOVIELENS_COLUMNS)
    return _from_columns(source, columns, read_metadata_beside(path.with_name("u.item")))


def read_ml_1m(path: Path, columns: ColumnNames) -> RawTable:
    """Read MovieLens `ratings.dat` ("::" separated, no header) and the `movies.dat` beside it.

    Raises:
        DataError: A line or a value is malformed.
    """
    path = _inside(path, "ratings.dat")
    source = read_delimited(path, "::", names=MOVIELENS_COLUMNS)
    return _from_columns(source, columns, read_metadata_beside(path.with_name("movies.dat")))


def read_csv(path: Path, columns: ColumnNames) -> RawTable:
    """Read comma separated values with a header line.

    Raises:
        DataError: A line or a value is malformed, or a column is missing.
    """
    return _from_columns(read_delimited(path, ",", quoted=True), columns)


def read_tsv(path: Path, columns: ColumnNames) -> RawTable:
    """Read tab separated values with a header line.

    Raises:
        DataError: A line or a value is malformed, or a column is missing.
    """
    return _from_columns(read_delimited(path, "\t"), columns)


def read_parquet_file(path: Path, columns: ColumnNames) -> RawTable:
    """Read a Parquet file.

    Raises:
        DataError: The file is unreadable, a value is missing, or a column is.
    """
    return _from_columns(read_parquet(path), columns)


READERS: dict[str, tuple[Reader, str]] = {
    "lightgcn": (read_lightgcn, "train.txt"),
    "recbole": (read_recbole, "*.inter"),
    "movielens-dat": (read_ml_1m, "ratings.dat"),
    "movielens-data": (read_ml_100k, "u.data"),
    "citeulike": (read_citeulike, "users.dat"),
    "csv": (read_csv, "*.csv"),
    "tsv": (read_tsv, "*.tsv"),
    "parquet": (read_parquet_file, "*.parquet"),
}
"""Format → (reader, name of the file it reads); MovieLens 1M has a `users.dat` too: citeulike comes later."""


@dataclass(frozen=True)
class TokenLines:
    """The tokens of a file's lines, first token apart.

    Attributes:
        path: The file.
        numbers: int64, shape (lines,): number of each line in the file, from 1.
        firsts: Arrow string array of the lines' first tokens.
        rest: Arrow string array of all further tokens, line after line.
        num_rest: int64, shape (lines,): how many of `rest` each line has.
        owner: int64, shape (len(rest),): row in `firsts` that each of `rest` belongs to.
    """

    path: Path
    numbers: npt.NDArray[np.int64]
    firsts: Any
    rest: Any
    num_rest: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]

    def require_integers(self) -> None:
        """Check that every token is a number.

        Raises:
            DataError: One is not.
        """
        for tokens, owner in ((self.firsts, np.arange(len(self.numbers))), (self.rest, self.owner)):
            good = pc.match_substring_regex(tokens, "^[0-9]+$")
            if len(tokens) and not pc.all(good).as_py():
                row = pc.index(good, False).as_py()
                found = tokens[row].as_py()[:40]
                raise DataError(
                    f"{self.path}: line {self.numbers[owner[row]]}: '{found}' is not a number; "
                    "correct the line, or give another --format"
                )


def read_token_lines(path: Path) -> TokenLines:
    """Read a file of white-space separated tokens; a trailing line end is no line.

    Raises:
        DataError: The file is missing, empty, not UTF-8, or has an empty line.
    """
    text = read_text(path).removesuffix("\n")
    if not text:
        raise DataError(f"{path}: the file is empty; give one with interactions in it")
    lines = pc.utf8_trim_whitespace(pa.array(text.split("\n"), pa.large_string()))
    empty = pc.equal(pc.utf8_length(lines), 0)
    if pc.any(empty).as_py():
        raise DataError(f"{path}: line {pc.index(empty, True).as_py() + 1}: empty; remove the line")
    parts = pc.utf8_split_whitespace(lines)
    tokens = parts.flatten().cast(pa.string())
    lengths = pc.list_value_length(parts).to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    is_rest = np.ones(len(tokens), dtype=bool)
    is_rest[starts] = False
    return TokenLines(
        path=path,
        numbers=np.arange(1, len(lengths) + 1),
        firsts=tokens.take(pa.array(starts)),
        rest=tokens.filter(pa.array(is_rest)),
        num_rest=lengths - 1,
        owner=np.repeat(np.arange(len(lengths)), lengths - 1),
    )


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


def _inside(path: Path, pattern: str) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob(pattern))
    if len(found) != 1:
        raise DataError(f"{path}: {len(found)} files match {pattern}, expected one; give the file itself")
    return found[0]


def _from_columns(source: Tabular, names: ColumnNames, metadata: ItemMetadata | None = None) -> RawTable:
    user, item = source.find(names.user, USER_COLUMNS), source.find(names.item, ITEM_COLUMNS)
    if user is None or item is None:
        missing = "user" if user is None else "item"
        raise DataError(
            f"{source.path}: no {missing} column among {', '.join(source.columns)}; name it by --{missing}-column"
        )
    rating = source.find(names.rating, RATING_COLUMNS)
    timestamp = source.find(names.timestamp, TIMESTAMP_COLUMNS)
    metadata = metadata or ItemMetadata()
    user_ids, user_index = encode_ids(source.strings(user), source.path)
    item_ids, item_index = encode_ids(source.strings(item), source.path)
    return RawTable(
        user_ids,
        item_ids,
        user_index,
        item_index,
        ratings=None if rating is None else source.numbers(rating),
        timestamps=None if timestamp is None else source.times(timestamp),
        item_titles=metadata.titles,
        item_categories=metadata.categories,
    )


def _table(path: Path, users: Any, items: Any) -> RawTable:
    user_ids, user_index = encode_ids(users, path)
    item_ids, item_index = encode_ids(items, path)
    return RawTable(user_ids, item_ids, user_index, item_index)
