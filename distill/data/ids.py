"""Ids from outside as row numbers, and what a file may do to them: spaces, '.0', words for what is missing.

Everything is asked of the distinct ids, not of the rows, so that it costs little beside reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from distill.errors import DataError

MAX_ID_LENGTH = 256
"""Ids are kept in fixed-width arrays; a longer one is almost surely a wrong delimiter."""
MISSING_WORDS = ("NaN", "nan", "NaT", "None", "null", "NULL", "<NA>", "NA", "N/A", "#N/A", "\\N")
"""What pandas, SQL, Hive, R and spreadsheets write for a value that is not there."""
CONTROL = "[\\x00-\\x1f\\x7f]"
WHOLE = r"^-?[0-9]+(\.0+)?$"
POINT_ZERO = r"^(-?[0-9]+)\.0+$"
SCIENTIFIC = r"^-?[0-9](\.[0-9]+[eE]\+?|[eE]\+)[0-9]+$"
"""With a point or a plus: `1e5` is also hexadecimal."""
ZERO_WIDTH = "[\u200b\u200c\u200d\u2060\ufeff]"


@dataclass(frozen=True)
class EncodedIds:
    """Distinct ids and the rows that have them.

    Attributes:
        ids: Distinct ids in order of first appearance, array of str of shape (m,).
        index: int64, shape (n,), row numbers into `ids`.
        notes: What was done to ids, or is strange about them.
    """

    ids: npt.NDArray[np.str_]
    index: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()


def encode_ids(values: Any, where: Callable[[int], str], kind: str, *, as_written: bool = False) -> EncodedIds:
    """Number the distinct values of an Arrow string array in order of first appearance.

    Spaces around an id are dropped; so is '.0' where every id is a whole number. Both are noted.

    Args:
        values: Arrow string array or chunked array of n values without nulls.
        where: Row number (from 0) → the file and line that a message names.
        kind: "user" or "item".
        as_written: Take ids as they stand, words for missing values too.

    Raises:
        DataError: An id is too long, has a control character, is empty, or is a word for a missing value.
    """
    encoded = values.dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    vocabulary = encoded.dictionary
    index = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)

    def first(mask: Any) -> tuple[str, str]:
        """Find the first id of the mask: where it stands, and itself."""
        code = pc.index(mask, True).as_py()
        return where(int(np.argmax(index == code))), vocabulary[code].as_py()

    _require_possible(vocabulary, first, kind)
    if as_written:
        return EncodedIds(as_array(vocabulary), index)
    plain, notes = _plain_forms(vocabulary, first, kind)
    notes += _strange_forms(plain, first, kind)
    again = plain.dictionary_encode()
    if len(again.dictionary) < len(plain):
        index = again.indices.to_numpy(zero_copy_only=False).astype(np.int64)[index]
    return EncodedIds(as_array(again.dictionary), index, tuple(notes))


def plain_ids(values: Any, *, as_written: bool = False) -> list[str]:
    """Return ids in the form that `encode_ids` gives them, for titles to be found by."""
    return (values if as_written else _without_point_zero(pc.utf8_trim_whitespace(values))).to_pylist()  # type: ignore[no-any-return]


First = Callable[[Any], tuple[str, str]]


def _require_possible(vocabulary: Any, first: First, kind: str) -> None:
    longest = pc.max(pc.utf8_length(vocabulary)).as_py() or 0
    if longest > MAX_ID_LENGTH:
        place, _ = first(pc.greater(pc.utf8_length(vocabulary), MAX_ID_LENGTH))
        raise DataError(
            f"{place}: an id is {longest} characters long (limit {MAX_ID_LENGTH}); "
            "check the delimiter and the column names, or give --format"
        )
    control = pc.match_substring_regex(vocabulary, CONTROL)
    if pc.any(control).as_py():
        place, value = first(control)
        raise DataError(
            f"{place}: {kind} id {value[:40]!r} has a control character; remove it (a line break may come of a quote "
            "that is never closed, NUL of UTF-16)"
        )


def _plain_forms(vocabulary: Any, first: First, kind: str) -> tuple[Any, list[str]]:
    notes: list[str] = []
    trimmed = pc.utf8_trim_whitespace(vocabulary)
    spaced = pc.not_equal(trimmed, vocabulary)
    if pc.any(spaced).as_py():
        place, value = first(spaced)
        notes.append(f"{place}: {kind} id {value!r}: spaces around {_count(spaced)} distinct {kind} ids were dropped")
    empty = pc.equal(trimmed, "")
    if pc.any(empty).as_py():
        raise DataError(f"{first(empty)[0]}: the {kind} id is empty; fill it in or drop the line")
    missing = pc.is_in(trimmed, pa.array(MISSING_WORDS))
    if pc.any(missing).as_py():
        place, value = first(missing)
        raise DataError(
            f"{place}: {kind} id '{value}' is a word for a missing value; fill it in or drop the line, "
            "or give --ids-as-written where it is an id"
        )
    plain = _without_point_zero(trimmed)
    shortened = pc.not_equal(plain, trimmed)
    if pc.any(shortened).as_py():
        place, value = first(shortened)
        notes.append(f"{place}: {kind} id '{value}': '.0' was dropped of {_count(shortened)} distinct {kind} ids")
    return plain, notes


def _without_point_zero(ids: Any) -> Any:
    """Drop '.0' where all ids are whole numbers: an integer column with holes is written as floats."""
    if not pc.all(pc.match_substring_regex(ids, WHOLE)).as_py():
        return ids
    return pc.replace_substring_regex(ids, POINT_ZERO, r"\1")


def _strange_forms(ids: Any, first: First, kind: str) -> list[str]:
    """Note ids that are equal to another but for form, that a spreadsheet rounded, or that hold what nobody sees."""
    notes = []
    alike = pc.replace_substring_regex(pc.utf8_normalize(ids, "NFC"), POINT_ZERO, r"\1")
    changed = pa.array(_repeats(alike) & ~_repeats(ids))
    if pc.any(changed).as_py():
        place, value = first(changed)
        notes.append(
            f"{place}: {kind} id '{value}': {_count(changed)} {kind} ids differ from an earlier one only by form"
        )
    scientific = pc.match_substring_regex(ids, SCIENTIFIC)
    if pc.any(scientific).as_py():
        place, value = first(scientific)
        notes.append(f"{place}: {kind} id '{value}': {_count(scientific)} {kind} ids look rounded by a spreadsheet")
    unseen = pc.match_substring_regex(ids, ZERO_WIDTH)
    if pc.any(unseen).as_py():
        place, value = first(unseen)
        notes.append(
            f"{place}: {kind} id {value!r}: {_count(unseen)} distinct {kind} ids have characters of no width; "
            "they were kept as they are"
        )
    return notes


def _repeats(ids: Any) -> npt.NDArray[np.bool_]:
    """Tell which ids stand further up already."""
    codes = ids.dictionary_encode().indices.to_numpy()
    repeats = np.ones(len(codes), dtype=bool)
    repeats[np.unique(codes, return_index=True)[1]] = False
    return repeats


def _count(mask: Any) -> str:
    return f"{pc.sum(mask).as_py():,}"


def as_array(strings: Any) -> npt.NDArray[np.str_]:
    """Return an Arrow array of strings as a NumPy one.

    A million strings of ASCII take a tenth of a second so, and half a second by way of Python's.
    """
    if len(strings) and pc.all(pc.string_is_ascii(strings)).as_py():
        width = max(1, pc.max(pc.binary_length(strings)).as_py())
        padded = pc.ascii_rpad(strings, width, "\0")
        padded = padded.combine_chunks() if isinstance(padded, pa.ChunkedArray) else padded
        first = padded.offset * width
        content = np.frombuffer(padded.buffers()[2], dtype=np.uint8)[first : first + len(padded) * width]
        return content.view(f"S{width}").astype(np.str_)
    return np.asarray(strings.to_pylist(), dtype=np.str_)
