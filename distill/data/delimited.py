"""Delimited text as an Arrow table of strings.

Arrow reads; what it cannot say, which physical line a record or a fault is on, the `csv` module finds out afterwards,
and only where there is a fault.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from distill.data.tabular import Tabular
from distill.data.text import HEAD_BYTES, count_lines, read_bytes, require_encoding
from distill.errors import DataError

BLOCK_BYTES = 1 << 20
MAX_BLOCK_BYTES = (1 << 31) - 1


@dataclass(frozen=True)
class _Source:
    path: Path
    content: bytes
    delimiter: str
    quoted: bool

    def records(self, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Yield (physical line a record starts on, its fields), passing over empty lines as Arrow does.

        Raises:
            DataError: `strict`, and a quoted value goes on after its quote, or never ends.
        """
        # The limit is the process's own; it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), len(self.content) + 1))
        text = io.StringIO(self.content.decode("utf-8", errors="replace"), newline="")
        reader = csv.reader(
            text, delimiter=self.delimiter, quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE, strict=strict
        )
        start = 1
        try:
            for record in reader:
                if record:
                    yield start, record
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{self.path}: line {start}: a value in quotes is not closed where it ends ({error}); close the quote, "
                "and write a quote inside of a value twice"
            ) from error


def read_delimited(
    path: Path,
    delimiter: str,
    *,
    names: Sequence[str] | None = None,
    typed_header: bool = False,
    quotes: str = "never",
) -> Tabular:
    """Read delimited text; every value stays a string.

    Args:
        path: The file.
        delimiter: One character, or two (then it is replaced by a tab first, as for MovieLens' "::").
        names: Column names of a file without a header line.
        typed_header: The header has RecBole's "name:type" fields; the types are dropped.
        quotes: Whether a value that begins with a double quote ends with one: `never`, `always`, or `consistent`:
            where that is true of all values of the file.

    Raises:
        DataError: The file is missing, empty, not UTF-8, a line has the wrong number of fields, or a quote stays open.
    """
    content = read_bytes(path)
    if len(delimiter) > 1:
        content, delimiter = content.replace(delimiter.encode(), b"\t"), "\t"
    if not content.strip():
        raise DataError(f"{path}: the file is empty; give one with interactions in it")
    source = _Source(path, content, delimiter, quotes != "never" and b'"' in content)
    notes: tuple[str, ...] = ()
    if quotes == "consistent" and source.quoted and not _is_consistent(source):
        source = _Source(path, content, delimiter, quoted=False)
        notes = (f"{path.name}: not every quote that opens is closed: quotes are read as text",)
    header_rows = 0 if names else 1
    names, lists = (tuple(names), ()) if names else _header(source, typed=typed_header)
    table = _parse(source, names, header_rows)
    return Tabular(path, names, table, lambda row: _line_of(source, row + header_rows), notes, lists)


def _parse(source: _Source, names: Sequence[str], header_rows: int) -> Any:
    """Read all records after the header.

    Raises:
        DataError: A line is malformed.
    """
    # An empty line before the header would be skipped in its place.
    content = source.content.lstrip(b"\r\n")
    for size in (BLOCK_BYTES, max(BLOCK_BYTES + 1, min(len(content), MAX_BLOCK_BYTES))):
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(content),
                pa_csv.ReadOptions(
                    column_names=list(names),
                    skip_rows_after_names=header_rows,
                    block_size=size,
                    # A pool of threads costs more than a block of text.
                    use_threads=len(content) > size,
                ),
                pa_csv.ParseOptions(
                    delimiter=source.delimiter,
                    quote_char='"' if source.quoted else False,
                    newlines_in_values=source.quoted,
                ),
                pa_csv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False),
            )
        except pa.ArrowException as error:
            # A record longer than a block: once more, in one block.
            if "straddl" in str(error) and size == BLOCK_BYTES:
                continue
            raise _malformed(source, len(names), error) from error
        if source.quoted and table.num_rows + header_rows < count_lines(content):
            _require_closed_quotes(source, table.num_rows + header_rows)
        return table
    raise AssertionError("unreachable")


def _require_closed_quotes(source: _Source, found: int) -> None:
    """Check quotes strictly where values have line breaks: an open quote would swallow lines."""
    expected = sum(1 for _ in source.records(strict=True))
    if expected != found:
        raise DataError(
            f"{source.path}: {found} records or {expected}, as one takes its quotes; quote all values alike"
        )


def _is_consistent(source: _Source) -> bool:
    try:
        for _ in source.records(strict=True):
            pass
    except DataError:
        return False
    return True


def _header(source: _Source, *, typed: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the names of all columns, and of those that RecBole types as sequences."""
    path = source.path
    head = source.content.lstrip(b"\r\n")[:HEAD_BYTES]
    names = next((record for _, record in _Source(path, head, source.delimiter, source.quoted).records()), [])
    if "\ufffd" in "".join(names):
        require_encoding(path, source.content)
    lists: list[str] = []
    if typed:
        untyped = [name for name in names if ":" not in name]
        if untyped:
            raise DataError(
                f"{path}: line 1: field '{untyped[0][:40]}' is not 'name:type'; "
                "give the RecBole header, or read the file with --format tsv"
            )
        lists = [name.split(":", 1)[0] for name in names if name.endswith("_seq")]
        names = [name.split(":", 1)[0] for name in names]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: line 1: a column name is given twice; rename one")
    return tuple(names), tuple(lists)


def _line_of(source: _Source, record: int) -> str:
    for position, (line, _) in enumerate(source.records()):
        if position == record:
            return f"line {line}"
    return f"row {record}"


def _malformed(source: _Source, expected: int, cause: Exception) -> DataError:
    require_encoding(source.path, source.content)
    for line, record in source.records():
        if len(record) != expected:
            return DataError(
                f"{source.path}: line {line}: {len(record)} fields, expected {expected}; "
                "correct the line, or give the right --format"
            )
    reason = " ".join(str(cause).split())[:200]
    return DataError(f"{source.path}: unreadable ({reason}); save it as UTF-8 text, or give the right --format")
