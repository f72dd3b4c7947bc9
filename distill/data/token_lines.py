"""Text files whose lines are "first rest rest ...", as citeulike and LightGCN have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from distill.data.tabular import read_text
from distill.errors import DataError


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
