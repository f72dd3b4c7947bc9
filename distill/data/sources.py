"""Which files of a folder are the source: one file, parts of one table, or a split that is ready."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.data.parquet import SUFFIX, find_parts, visible
from distill.data.tabular import Tabular, join_tables
from distill.data.text import plain_name
from distill.errors import DataError

SPLIT_WORDS = {"train": 0, "valid": 1, "val": 1, "validation": 1, "dev": 1, "test": 2}
ROLE = re.compile(rf"(?:.*[^a-z])?({'|'.join(SPLIT_WORDS)})([-_.]\d+(?:[-_]of[-_]\d+)?)?")
"""`train`, `ratings_train`, `ml-100k.train`, and numbered parts such as `train-00000-of-00002`."""


@dataclass(frozen=True)
class Source:
    """The table of a source, and how its files make it up.

    Attributes:
        table: All rows.
        files: Names of the files read.
        unread_files: Names of those of the same kind that were left aside.
        splits: int8, shape (n,), 0 train, 1 validation, 2 test, where the files are a ready split.
        has_validation: False where a ready split lacks that part.
    """

    table: Tabular
    files: tuple[str, ...]
    unread_files: tuple[str, ...] = ()
    splits: npt.NDArray[np.int8] | None = None
    has_validation: bool = True


def matching(folder: Path, pattern: str) -> list[Path]:
    """List what in a folder has a name of that pattern, compressed or not, by name; folders of Parquet parts too."""
    entries = visible(folder)
    found = [path for path in entries if path.is_file() and fits(path, pattern)]
    if pattern == f"*{SUFFIX}":
        found += [path for path in entries if path.is_dir() and "=" not in path.name and find_parts(path)]
    return found


def fits(path: Path, pattern: str) -> bool:
    """Tell whether a file has a name of that pattern, in any case, compressed or not."""
    return fnmatchcase(plain_name(path).lower(), pattern)


def open_source(path: Path, pattern: str, read: Callable[[Path], Tabular]) -> Source:
    """Read a file, or of a folder the one file, the parts or the ready split that fit the pattern.

    Args:
        path: A file or a folder.
        pattern: Of the names to look for.
        read: Reads one file, and of Parquet a folder of parts.

    Raises:
        DataError: It cannot be told what of the folder to read, or a file is malformed.
    """
    if not path.is_dir():
        return Source(read(path), (path.name,))
    found = matching(path, pattern)
    split = find_ready_split(path, found)
    if split is not None:
        return _open_split(path, found, split, read)
    parts = find_parts(path) if pattern == f"*{SUFFIX}" else []
    if parts and not any(table.is_dir() for table in found):
        return Source(read(path), tuple(str(part.relative_to(path)) for part in parts))
    if len(found) != 1 or parts:
        names = f" ({', '.join(table.name for table in found[:3])})" if found else ""
        raise DataError(
            f"{path}: {len(found)} files match {pattern}{names}, expected one; give the file itself, or train and test "
            "files"
        )
    return Source(read(found[0]), (found[0].name,))


def find_ready_split(folder: Path, files: Sequence[Path]) -> dict[int, list[Path]] | None:
    """Tell by their names which files are train (0), validation (1) and test (2).

    A file that is called by the word alone goes before one that only ends with it.

    Returns:
        Part → files, several where they are numbered; None where none is called train.

    Raises:
        DataError: Test is missing, or two files claim a part.
    """
    exact: dict[int, list[Path]] = {}
    ending: dict[int, list[Path]] = {}
    for path in files:
        stem = Path(plain_name(path)).stem.lower()
        role = ROLE.fullmatch(stem)
        if role:
            named = ending if role.start(1) else exact
            named.setdefault(SPLIT_WORDS[role[1]], []).append(path)
    split = {part: exact.get(part) or ending[part] for part in sorted({*exact, *ending})}
    if 0 not in split:
        return None
    if 2 not in split:
        raise DataError(f"{folder}: {split[0][0].name} has no test file beside it; add one, or give the file itself")
    for part in split.values():
        if len(part) > 1 and not all(_number(path) for path in part):
            raise DataError(
                f"{folder}: {part[0].name} and {part[1].name} are both one part of a split; leave one there"
            )
    return split


def _number(path: Path) -> str | None:
    role = ROLE.fullmatch(Path(plain_name(path)).stem.lower())
    return role[2] if role else None


def _open_split(
    folder: Path, found: Sequence[Path], split: dict[int, list[Path]], read: Callable[[Path], Tabular]
) -> Source:
    files = [(part, path) for part, paths in split.items() for path in paths]
    tables = [read(path) for _, path in files]
    lengths = [table.table.num_rows for table in tables]
    used = [path for _, path in files]
    return Source(
        join_tables(folder, tables),
        tuple(path.name for path in used),
        tuple(path.name for path in found if path not in used),
        np.repeat(np.array([part for part, _ in files], dtype=np.int8), lengths),
        has_validation=1 in split,
    )
