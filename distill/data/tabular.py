"""Delimited text and Parquet files as Arrow tables, and their columns as ids, numbers and times.

Text is read whole as strings and converted here, so that a bad value is named with its line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from distill.errors import DataError

MAX_ID_LENGTH = 256
"""Ids are kept in fixed-width arrays; a longer one is almost surely a wrong delimiter."""
TIME_TYPES = (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC"))


@dataclass(frozen=True)
class Tabular:
    """Named columns of a file.

    Attributes:
        path: The file.
        columns: All names the file has, in order.
        table: Arrow table; strings only when the file is text.
        locate: Row number (from 0) → words such as "line 17" for a message.
    """

    path: Path
    columns: tuple[str, ...]
    table: Any
    locate: Callable[[int], str]

    def find(self, wanted: str | None, candidates: Sequence[str]) -> str | None:
        """Return the column `wanted`, or else the first candidate that the file has, or None.

        Raises:
            DataError: `wanted` is given and missing.
        """
        if wanted is not None and wanted not in self.columns:
            raise DataError(f"{self.path}: no column '{wanted}'; it has {', '.join(self.columns)}: name one of these")
        return wanted or next((name for name in candidates if name in self.columns), None)

    def strings(self, name: str) -> Any:
        """Return a column of ids as an Arrow string array.

        Raises:
            DataError: A value is empty, or the column's type cannot be an id.
        """
        column = self.table[name]
        if not _is_id_type(column.type):
            raise DataError(f"{self.path}: column '{name}' is of type {column.type}; store ids as integers or strings")
        column = column.cast(pa.string())
        empty = pc.fill_null(pc.equal(pc.utf8_length(column), 0), True)
        if pc.any(empty).as_py():
            row = pc.index(empty, True).as_py()
            raise DataError(f"{self.path}: {self.locate(row)}: column '{name}' is empty; fill it in or drop the line")
        return column

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

    def times(self, name: str) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
        """Return a column of times as int64 or float64 that sort by time.

        Numbers are taken as they are; dates and ISO 8601 text become microseconds.

        Raises:
            DataError: A value is missing, or neither a number nor a date.
        """
        column = self._trimmed(name)
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.timestamp("us"), safe=False)
        for target in TIME_TYPES:
            values = _cast(column, target)
            if values is None or values.null_count:
                continue
            if pa.types.is_temporal(target):
                values = values.cast(pa.int64())
            numbers: npt.NDArray[Any] = values.to_numpy()
            self._require_finite(name, numbers, "a time")
            return numbers
        texts = column.to_pylist()
        row = next((row for row, text in enumerate(texts) if not _is_time(text)), None)
        if row is None:
            raise DataError(f"{self.path}: column '{name}' mixes forms of time; write all of them alike")
        raise DataError(
            f"{self.path}: {self.locate(row)}: column '{name}' is {texts[row]!r}, not a time; "
            "give seconds, or a date such as 2024-05-01T12:00:00"
        )

    def _trimmed(self, name: str) -> Any:
        column = self.table[name]
        return pc.utf8_trim_whitespace(column) if pa.types.is_string(column.type) else column

    def _require_finite(self, name: str, values: npt.NDArray[Any], kind: str) -> None:
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            value = self.table[name][row].as_py()
            raise DataError(
                f"{self.path}: {self.locate(row)}: column '{name}' is {value!r}, not {kind}; "
                "correct it or drop the line"
            )


def read_delimited(
    path: Path,
    delimiter: str,
    *,
    names: Sequence[str] | None = None,
    typed_header: bool = False,
    quoted: bool = False,
) -> Tabular:
    """Read delimited text; every value stays a string.

    Args:
        path: The file.
        delimiter: One character, or two (then it is replaced by a tab first, as for MovieLens' "::").
        names: Column names of a file without a header line.
        typed_header: The header has RecBole's "name:type" fields; the types are dropped.
        quoted: Values may stand in double quotes.

    Raises:
        DataError: The file is missing, empty, not UTF-8, or a line has the wrong number of fields.
    """
    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    if len(delimiter) > 1:
        content, delimiter = content.replace(delimiter.encode(), b"\t"), "\t"
    if not content.strip():
        raise DataError(f"{path}: the file is empty; give one with interactions in it")
    header_lines = 0 if names else 1
    if names is None:
        names = _header(path, content, delimiter, typed=typed_header, quoted=quoted)
    try:
        table = pa_csv.read_csv(
            io.BytesIO(content),
            pa_csv.ReadOptions(column_names=list(names), skip_rows=header_lines),
            pa_csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoted else False),
            pa_csv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False),
        )
    except pa.ArrowException as error:
        raise _malformed(path, content, delimiter, len(names), quoted, error) from error
    return Tabular(path, tuple(names), table, lambda row: _line_of(content, row + header_lines))


def read_parquet(path: Path) -> Tabular:
    """Read a Parquet file; columns keep their types.

    Raises:
        DataError: The file is missing or not Parquet.
    """
    read_first = path.is_file()
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200] if read_first else "no such file"
        raise DataError(f"{path}: unreadable Parquet ({reason}); check the path and the file") from error
    return Tabular(path, tuple(table.column_names), table, lambda row: f"row {row + 1}")


def encode_ids(values: Any, path: Path) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """Number the distinct values of an Arrow string array in order of first appearance.

    Args:
        values: Arrow string array or chunked array of n values without nulls.
        path: The file that a message names.

    Returns:
        The distinct values, and int64 row numbers into them of shape (n,).

    Raises:
        DataError: An id is longer than `MAX_ID_LENGTH` characters.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = array.dictionary_encode()
    vocabulary = encoded.dictionary
    longest = pc.max(pc.utf8_length(vocabulary)).as_py() or 0
    if longest > MAX_ID_LENGTH:
        raise DataError(
            f"{path}: an id is {longest} characters long (limit {MAX_ID_LENGTH}); "
            "check the delimiter and the column names, or give --format"
        )
    ids = np.asarray(vocabulary.to_pylist(), dtype=np.str_)
    return ids, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Read a whole text file.

    Raises:
        DataError: It is missing, unreadable or not in `encoding`.
    """
    content = read_bytes(path)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: not {encoding} text; convert the file to {encoding}") from error


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        DataError: It is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; check the path") from error


def _is_id_type(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _cast(column: Any, target: Any) -> Any | None:
    try:
        return column.cast(target)
    except pa.ArrowException:
        return None


def _is_time(text: Any) -> bool:
    return text is not None and any(_cast(pa.array([text]), target) is not None for target in TIME_TYPES)


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _header(path: Path, content: bytes, delimiter: str, *, typed: bool, quoted: bool) -> list[str]:
    line = content.split(b"\n", 1)[0].decode("utf-8", errors="replace").rstrip("\r")
    names = _fields(line, delimiter, quoted)
    if typed:
        untyped = [name for name in names if ":" not in name]
        if untyped:
            raise DataError(
                f"{path}: line 1: field '{untyped[0][:40]}' is not 'name:type'; "
                "give the RecBole header, or read the file with --format tsv"
            )
        names = [name.split(":", 1)[0] for name in names]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: line 1: a column name is given twice; rename one")
    return names


def _fields(line: str, delimiter: str, quoted: bool) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), []) if quoted else line.split(delimiter)


def _lines(content: bytes) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of lines that are not empty; Arrow passes over the empty ones too."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        text = line.decode("utf-8", errors="replace").rstrip("\r")
        if text:
            yield number, text


def _line_of(content: bytes, record: int) -> str:
    for position, (number, _) in enumerate(_lines(content)):
        if position == record:
            return f"line {number}"
    return f"row {record}"


def _malformed(path: Path, content: bytes, delimiter: str, expected: int, quoted: bool, cause: Exception) -> DataError:
    for number, text in _lines(content):
        found = len(_fields(text, delimiter, quoted))
        if found != expected:
            return DataError(
                f"{path}: line {number}: {found} fields, expected {expected}; "
                "correct the line, or give the right --format"
            )
    reason = " ".join(str(cause).split())[:200]
    return DataError(f"{path}: unreadable ({reason}); save it as UTF-8 text, or give the right --format")
