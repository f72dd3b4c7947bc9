from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from distill.data.ids import MISSING_WORDS, encode_ids, plain_ids
from distill.errors import DataError


def where(row: int) -> str:
    return f"a.csv: line {row + 2}"


def test_ids_are_numbered_by_first_appearance_over_all_chunks() -> None:
    values = pa.chunked_array([["b", "a"], ["c", "b"]])
    encoded = encode_ids(values, where, "user")
    assert encoded.ids.tolist() == ["b", "a", "c"]
    assert encoded.index.tolist() == [0, 1, 2, 0]
    assert encoded.notes == ()


def test_spaces_around_are_dropped_and_told() -> None:
    encoded = encode_ids(pa.array(["a", "b", " a", "a\u00a0", "b"]), where, "item")
    assert encoded.ids.tolist() == ["a", "b"]
    assert encoded.index.tolist() == [0, 1, 0, 0, 1]
    assert encoded.notes == ("a.csv: line 4: item id ' a': spaces around 2 distinct item ids were dropped",)


def test_whole_numbers_lose_their_point_and_are_told() -> None:
    encoded = encode_ids(pa.array(["12", "12.0", "7.00", "-3"]), where, "item")
    assert encoded.ids.tolist() == ["12", "7", "-3"]
    assert encoded.index.tolist() == [0, 0, 1, 2]
    assert encoded.notes == ("a.csv: line 3: item id '12.0': '.0' was dropped of 2 distinct item ids",)
    assert plain_ids(pa.array(["12.0", " 7"])) == ["12", "7"]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (["1.0", "v2", "1", "1"], "line 4: item id '1': 1 item ids differ from an earlier one only by form"),
        (["é", "e\u0301"], "line 3: item id 'e\u0301': 1 item ids differ from an earlier one only by form"),
        (["a", "1.7E+12", "1.8E+12"], "line 3: item id '1.7E+12': 2 item ids look rounded by a spreadsheet"),
        (["1500", "1.5E+03"], "line 3: item id '1.5E+03': 1 item ids look rounded by a spreadsheet"),
        (["1500", "1.5e3"], "line 3: item id '1.5e3': 1 item ids look rounded by a spreadsheet"),
        (["1500", "1.5e+03"], "line 3: item id '1.5e+03': 1 item ids look rounded by a spreadsheet"),
        (["2e5", "2e+5"], "line 3: item id '2e+5': 1 item ids look rounded by a spreadsheet"),
        *(
            (
                ["a", text, "a\u200b"],
                f"line 3: item id {text!r}: 2 distinct item ids have characters of no width; they were "
                "kept as they are",
            )
            for text in ("\ufeffa", "a\u200cb", "\u200d", "a\u2060")
        ),
    ],
)
def test_what_only_looks_alike_is_kept_and_told(values: list[str], note: str) -> None:
    encoded = encode_ids(pa.array(values), where, "item")
    assert encoded.ids.tolist() == list(dict.fromkeys(values))
    assert encoded.notes == (f"a.csv: {note}",)


def test_case_and_leading_zeros_are_no_form() -> None:
    encoded = encode_ids(pa.array(["a", "A", "07", "7", "1.5"]), where, "item")
    assert len(encoded.ids) == 5
    assert encoded.notes == ()


@pytest.mark.parametrize("word", [*MISSING_WORDS, " NaN"])
def test_words_for_what_is_missing_are_refused(word: str) -> None:
    with pytest.raises(DataError, match=r"line 3: user id '.*' is a word for a missing value; fill it in or drop"):
        encode_ids(pa.array(["a", word]), where, "user")
    kept = encode_ids(pa.array(["a", word, "1.0 "]), where, "user", as_written=True)
    assert kept.ids.tolist() == ["a", word, "1.0 "]
    assert kept.notes == ()


@pytest.mark.parametrize("as_written", [True, False])
@pytest.mark.parametrize("bad", ["a\0", "a\nb", "\x7f", "a\t"])
def test_control_characters_are_refused(bad: str, as_written: bool) -> None:
    with pytest.raises(DataError, match=r"line 3: item id '.*' has a control character; remove it"):
        encode_ids(pa.array(["a", bad]), where, "item", as_written=as_written)


def test_nothing_but_spaces_is_empty() -> None:
    with pytest.raises(DataError, match="line 2: the user id is empty; fill it in or drop the line"):
        encode_ids(pa.array(["  "]), where, "user")


def test_an_empty_column() -> None:
    encoded = encode_ids(pa.array([], pa.string()), where, "user")
    assert encoded.ids.size == 0
    assert encoded.index.dtype == np.int64
