"""Named columns of a source as ids, numbers and times; a bad value is named with its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from distill.data.times import Times
from distill.errors import DataError

TIME_TYPES = (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC"))
TEXT_TYPES = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
"""By name: pyarrow 15 has no functions that ask for the views."""
EXACT_BITS = {16: 11, 32: 24, 64: 53}
"""Width of a float → the power of two from which on two whole numbers may be stored as one."""
SEPARATOR_REMEDIES = {
    "\t": "give --format tsv",
    ";": "save the file with commas",
    "|": "save the file with commas",
    ",": "give --format csv",
}
"""What may part the fields of a header that was read as one → what to do."""
ROUNDED = r"^[0-9](\.[0-9]{0,7})?[eE]\+?(09|9|1[0-9])$"
"""A time of which a spreadsheet kept less than its tens of seconds."""


@dataclass(frozen=True)
class Tabular:
    """Named columns of a file.

    Attributes:
        path: The file, or the folder of several.
        columns: All names the file has, in order.
        table: Arrow table; strings only when the file is text.
        locate: Row number (from 0) → words such as "line 17" for a message.
        notes: What whoever reads it should know.
        lists: Names of columns that have several values a row, RecBole's `token_seq`.
    """

    path: Path
    columns: tuple[str, ...]
    table: Any
    locate: Callable[[int], str]
    notes: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()

    def find(self, wanted: str | None, candidates: Sequence[str], option: str | None = None) -> str | None:
        """Return the column `wanted`, or else the first candidate that the file has, or None.

        Case, spaces around, and what stands between the words of a candidate ("User ID", "user_id") make no difference.

        Raises:
            DataError: `wanted` is given and missing, or several columns fit a candidate alike.
        """
        if wanted in self.columns:
            return wanted
        if wanted is not None:
            raise DataError(f"{self.path}: no column '{wanted}'; it has {', '.join(self.columns)}: name one of these")
        for candidate in candidates:
            if candidate in self.columns:
                return candidate
            fitting = [name for name in self.columns if _folded(name) == _folded(candidate)]
            if len(fitting) > 1:
                remedy = f"name one by {option}" if option else "rename one"
                raise DataError(f"{self.path}: columns {' and '.join(map(repr, fitting))} are alike; {remedy}")
            if fitting:
                return fitting[0]
        return None

    def remedy_for_none(self, role: str) -> str:
        """Say what to do where no column is found: a header of one field may have another separator."""
        separator = next((mark for mark in SEPARATOR_REMEDIES if mark in self.columns[0]), None)
        if len(self.columns) > 1 or separator is None:
            return f"name it by --{role}-column"
        return f"fields seem to be parted by {separator!r}: {SEPARATOR_REMEDIES[separator]}"

    def where(self, row: int) -> str:
        """Return file and line of a row."""
        return f"{self.path}: {self.locate(row)}"

    def strings(self, name: str) -> Any:
        """Return a column of ids as an Arrow string array.

        Raises:
            DataError: A value is empty, or the column's type cannot be an id.
        """
        if name in self.lists:
            raise DataError(
                f"{self.path}: column '{name}' is a sequence (token_seq), no id; write a row for each id of it"
            )
        column = self.plain(name)
        if pa.types.is_floating(column.type):
            column = self._whole(name, column)
        elif pa.types.is_decimal(column.type) and column.type.scale == 0:
            column = _cast(column, pa.string())
        elif not (pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_null(column.type)):
            column = None
        if column is None:
            kind = self.table[name].type
            raise DataError(f"{self.path}: column '{name}' is of type {kind}; store ids as integers or strings")
        column = column.cast(pa.string())
        empty = pc.fill_null(pc.equal(pc.utf8_length(column), 0), True)
        if pc.any(empty).as_py():
            row = pc.index(empty, True).as_py()
            raise DataError(f"{self.where(row)}: column '{name}' is empty; fill it in or drop the line")
        return column

    def note_floats(self, name: str) -> tuple[str, ...]:
        """Note ids that are stored as floats, which `strings` reads without '.0'."""
        kind = self.table[name].type
        if not pa.types.is_floating(kind):
            return ()
        return (f"{self.path}: column '{name}' is of type {kind}: ids are its whole numbers, without '.0'",)

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of finite numbers as float64.

        Raises:
            DataError: A value is missing or not a finite number.
        """
        column = self._trimmed(name)
        try:
            values = column.cast(pa.float64()).to_numpy()
        except pa.ArrowException:
            values = np.array([_to_float(value) for value in column.to_pylist()])
        self._require_finite(name, values, "a number")
        return np.asarray(values, dtype=np.float64)

    def times(self, name: str) -> tuple[Times, str | None, tuple[str, ...]]:
        """Return a column of times as int64 or float64 that sort by time, their unit, and notes.

        Numbers are taken as they are, in a unit not known here (None); dates and ISO 8601 text become microseconds
        ("us").

        Raises:
            DataError: A value is missing, or neither a number nor a date.
        """
        column = self._trimmed(name)
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("us"), safe=False)
        elif not _can_be_time(column.type):
            raise DataError(
                f"{self.path}: column '{name}' is of type {column.type}, no point in time; store a timestamp or number"
            )
        for target in TIME_TYPES:
            values = _cast(column, target)
            if values is None or values.null_count:
                continue
            unit = "us" if pa.types.is_temporal(target) else None
            numbers: Times = (values.cast(pa.int64()) if unit else values).to_numpy()
            self._require_finite(name, numbers, "a time")
            return numbers, unit, self._rounding(column) if target == pa.float64() else ()
        raise self._not_times(name, column)

    def _not_times(self, name: str, column: Any) -> DataError:
        texts = column.to_pylist()
        row = next((row for row, text in enumerate(texts) if not _is_time(text)), None)
        if row is None:
            return DataError(f"{self.path}: column '{name}' mixes forms of time; write all of them alike")
        return DataError(
            f"{self.where(row)}: column '{name}' is {texts[row]!r}, not a time; "
            "give seconds, or a date such as 2024-05-01T12:00:00"
        )

    def _rounding(self, column: Any) -> tuple[str, ...]:
        if not pa.types.is_string(column.type):
            return ()
        rounded = pc.match_substring_regex(column, ROUNDED)
        if not pc.any(rounded).as_py():
            return ()
        row = pc.index(rounded, True).as_py()
        return (
            f"{self.where(row)}: time '{column[row].as_py()}': {pc.sum(rounded).as_py():,} times look rounded by a "
            "spreadsheet; they do not order what happened",
        )

    def plain(self, name: str) -> Any:
        """Return a column with text of any Arrow type as strings, and dictionaries resolved."""
        column = self.table[name]
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        target = pa.string() if str(kind) in TEXT_TYPES else kind
        if target == column.type:
            return column
        plain = _cast(column, target)
        if plain is None:
            raise DataError(f"{self.path}: column '{name}' of type {column.type} is no UTF-8 text; store strings")
        return plain

    def _whole(self, name: str, column: Any) -> Any | None:
        """Return floats that are whole as integers: an integer column with holes is stored so."""
        values = column.to_numpy().astype(np.float64)
        missing = np.isnan(values)
        if missing.any():
            row = int(np.argmax(missing))
            raise DataError(f"{self.where(row)}: column '{name}' is empty; fill it in or drop the line")
        if not np.all(np.floor(values) == values):
            return None
        limit = 1 << EXACT_BITS[column.type.bit_width]
        large = np.abs(values) >= limit
        if large.any():
            row = int(np.argmax(large))
            raise DataError(
                f"{self.where(row)}: column '{name}' is {values[row]:.0f}, too large for an id of type {column.type}, "
                f"which rounds whole numbers from {limit:,} on; store ids as int64 or strings"
            )
        return pa.array(values.astype(np.int64))

    def _trimmed(self, name: str) -> Any:
        column = self.plain(name)
        return pc.utf8_trim_whitespace(column) if pa.types.is_string(column.type) else column

    def _require_finite(self, name: str, values: npt.NDArray[Any], kind: str) -> None:
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            value = self.table[name][row].as_py()
            raise DataError(f"{self.where(row)}: column '{name}' is {value!r}, not {kind}; correct it or drop the line")


def join_tables(path: Path, parts: Sequence[Tabular]) -> Tabular:
    """Put the rows of several files below each other; only columns that all of them have, in any case, are kept.

    Raises:
        DataError: A column is of types that do not go together.
    """
    parts = [_spelled_as(parts[0].columns, part) for part in parts]
    columns = tuple(name for name in parts[0].columns if all(name in part.columns for part in parts))
    tables = [part.table.select(columns) for part in parts]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: its files differ in the types of their columns ({reason}); store them alike"
        ) from error
    ends = np.cumsum([table.num_rows for table in tables])

    def locate(row: int) -> str:
        number = int(np.searchsorted(ends, row, side="right"))
        part = parts[number]
        return f"{part.path.name}: {part.locate(row - int(ends[number]) + tables[number].num_rows)}"

    partial = dict.fromkeys(name for part in parts for name in part.columns if name not in columns)
    notes = [f"{path}: not every file has the column '{name}': it is not read" for name in partial]
    lists = tuple(name for part in parts for name in part.lists)
    return Tabular(path, columns, table, locate, (*(note for part in parts for note in part.notes), *notes), lists)


def _spelled_as(names: Sequence[str], part: Tabular) -> Tabular:
    """Give a column that differs from one of `names` only by case or by what is between its words that name."""
    missing = {_folded(name): name for name in names if name not in part.columns}
    further = [column for column in part.columns if column not in names]
    folded = [_folded(column) for column in further]
    fitting = [(column, key) for column, key in zip(further, folded, strict=True) if folded.count(key) == 1]
    spelling = {column: missing[key] for column, key in fitting if key in missing}
    columns = tuple(spelling.get(column, column) for column in part.columns)
    lists = tuple(spelling.get(column, column) for column in part.lists)
    return replace(part, columns=columns, lists=lists, table=part.table.rename_columns(list(columns)))


def _folded(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _can_be_time(kind: Any) -> bool:
    types = pa.types
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(number or types.is_string(kind) or types.is_timestamp(kind) or types.is_null(kind))


def _cast(column: Any, target: Any) -> Any | None:
    try:
        return column.cast(target)
    except pa.ArrowException:
        return None


def _is_time(text: Any) -> bool:
    return text is not None and any(_cast(pa.array([text]), target) is not None for target in TIME_TYPES)


def _to_float(value: Any) -> float:
    try:
        # Python reads 1_000 as a thousand.
        return float("nan") if isinstance(value, str) and "_" in value else float(value)
    except (TypeError, ValueError):
        return float("nan")
