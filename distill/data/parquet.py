"""Parquet as one table: a file, a folder of part files (as Spark writes it), or hive partitions (`key=value/`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from distill.data.tabular import Tabular
from distill.errors import DataError

SUFFIX = ".parquet"


def visible(folder: Path) -> list[Path]:
    """List what is in a folder by name, but for what "." or "_" hides, as from Spark.

    Raises:
        DataError: The folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}; check the path") from error


def find_parts(folder: Path) -> list[Path]:
    """List the Parquet files of a folder and of its hive partitions by name.

    Raises:
        DataError: A folder cannot be read.
    """
    found: list[Path] = []
    for path in visible(folder):
        if path.is_file() and path.suffix == SUFFIX:
            found.append(path)
        elif path.is_dir() and "=" in path.name:
            found += find_parts(path)
    return found


def read_parquet(path: Path) -> Tabular:
    """Read a Parquet file, or a folder of parts; columns keep their types, and hive keys are columns.

    Raises:
        DataError: A file is missing or not Parquet, or parts have different columns.
    """
    if not path.is_dir():
        return read_parts(path, [path])
    parts = find_parts(path)
    if not parts:
        raise DataError(f"{path}: no {SUFFIX} file in it; give the folder that has the parts, or a file")
    return read_parts(path, parts)


def read_parts(path: Path, parts: Sequence[Path]) -> Tabular:
    """Read files that are parts of one table, in the order given.

    Args:
        path: What messages name; partitions are told by the folders below it.
        parts: The files.

    Raises:
        DataError: A file is missing or not Parquet, or parts have different columns.
    """
    missing = next((part for part in parts if not part.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing}: unreadable Parquet (no such file); check the path and the file")
    source = path
    tables: list[pa.Table] = []
    try:
        # The type of a key is told by all folders together.
        whole = _open(path, parts, ds.partitioning(flavor="hive")).schema
        stored = set(_open(path, parts, None).schema.names)
        keys = pa.schema([field for field in whole if field.name not in stored])
        for source in parts:
            tables.append(_with_strings(_open(path, [source], ds.partitioning(keys, flavor="hive")).to_table()))
            _require_same_columns(parts[0], tables[0].schema, source, tables[-1].schema)
        source = path
        table = pa.concat_tables(tables, promote_options="permissive")
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{source}: unreadable Parquet ({reason}); check the path and the file") from error
    lengths = [part.num_rows for part in tables]

    def locate(row: int) -> str:
        if len(parts) == 1:
            return f"row {row + 1}"
        ends = np.cumsum(lengths)
        number = int(np.searchsorted(ends, row, side="right"))
        return f"{parts[number].relative_to(path)}: row {row + 1 - int(ends[number]) + lengths[number]}"

    return Tabular(path, tuple(table.column_names), table, locate)


def _open(base: Path, parts: Sequence[Path], partitioning: ds.Partitioning | None) -> ds.Dataset:
    files = [str(part) for part in parts]
    return ds.dataset(files, format="parquet", partitioning=partitioning, partition_base_dir=str(base))


def _with_strings(table: pa.Table) -> pa.Table:
    """Let text be of one type: Arrow widens numbers where parts differ, and not strings."""
    for position, field in enumerate(table.schema):
        if str(field.type) in {"large_string", "string_view"}:
            table = table.set_column(position, field.name, table.column(position).cast(pa.string()))
    return table


def _require_same_columns(first: Path, names: pa.Schema, other: Path, others: pa.Schema) -> None:
    differing = sorted(set(names.names) ^ set(others.names))
    if differing:
        raise DataError(
            f"{other}: it and {first.name} are no parts of one table, only one has the column '{differing[0]}'; "
            "give the file itself"
        )
