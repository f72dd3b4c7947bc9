"""Text whose lines are tokens parted by white space: citeulike's and LightGCN's lists, and `user item rating` lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from distill.data.tabular import Tabular
from distill.data.text import HEAD_BYTES, read_text
from distill.errors import DataError

TRIPLE_COLUMNS = ("user", "item", "rating", "timestamp")


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

    def note_repeats(self) -> tuple[str, ...]:
        """Note that users start several lines, where they do: a list has each on one."""
        codes = self.firsts.dictionary_encode().indices.to_numpy()
        firsts = np.unique(codes, return_index=True)[1]
        if len(firsts) == len(codes):
            return ()
        again = np.ones(len(codes), dtype=bool)
        again[firsts] = False
        row = int(np.argmax(again))
        return (
            f"{self.path}: line {self.numbers[row]}: user {self.firsts[row]} starts a line again, as "
            f"{int(again.sum()):,} lines do: their items were put together; if they are 'user item rating' lines, give "
            "--format triples",
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


def read_triple_lines(path: Path) -> Tabular:
    """Read lines of `user item`, `user item rating` or `user item rating time`, all of the same length.

    Raises:
        DataError: The file is missing or empty, or a line has another number of fields.
    """
    lines = read_token_lines(path)
    width = int(lines.num_rest[0])
    expected = width + 1 if 1 <= width <= 3 else 3
    wrong = lines.num_rest != expected - 1
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{path}: line {lines.numbers[row]}: {lines.num_rest[row] + 1} fields, expected {expected} (user item "
            "[rating [time]]); correct the line, or give --format lightgcn where lines are 'user item item ...'"
        )
    columns = TRIPLE_COLUMNS[:expected]
    fields = [lines.firsts, *(lines.rest.take(pa.array(np.arange(at, len(lines.rest), width))) for at in range(width))]
    return Tabular(path, columns, pa.table(dict(zip(columns, fields, strict=True))), lambda row: f"line {row + 1}")


def has_lists(files: Sequence[Path]) -> bool:
    """Tell 'user item item ...' lists from 'user item [rating [time]]' lines by the beginnings of a split's files.

    A list has each user on one line, and such lists are not all of 3 tokens; in lines of one interaction each, users
    come again, and all lines are of one length.

    Args:
        files: Of one split; those that are missing count for nothing.

    Raises:
        DataError: It could be either.
    """
    lengths: set[int] = set()
    repeats = False
    for path in files:
        text = read_text(path)
        lines = text[:HEAD_BYTES].split("\n")
        # The last line may be cut.
        lines = lines[:-1] if len(lines) > 1 else lines
        tokens = [line.split() for line in lines]
        lengths |= {len(line) for line in tokens if line}
        firsts = [line[0] for line in tokens if line]
        repeats |= len(set(firsts)) < len(firsts)
    if len(lengths) == 1 and repeats and lengths <= {2, 3, 4}:
        return False
    if lengths and lengths <= {3, 4} and (repeats or len(lengths) == 1):
        raise DataError(
            f"{files[0]}: its lines may be 'user item item ...' or 'user item rating'; give --format lightgcn or "
            "--format triples"
        )
    return True
