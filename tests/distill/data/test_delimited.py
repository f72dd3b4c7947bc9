from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.delimited import BLOCK_BYTES, read_delimited
from distill.data.raw_table import RawTable
from distill.data.readers import ColumnNames, read_table
from distill.errors import DataError
from tests.distill.data.packing import PACKINGS

AWKWARD = st.text(st.sampled_from("ab1.0,;\t\"'\n\r \u00a0\u2028\ufeff\x00\x85é表#\\"), max_size=6)
VALUES = AWKWARD | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PIECES = [
    *(letter.encode() for letter in ',\t"\n\r \x001a'),
    *b":: \xff 1.5 -1 1e999 nan null 2024-01-01 1700000000 0,1 a\tb".split(b" "),
    *b"\xef\xbb\xbf \xff\xfe PK\x03\x04 PAR1 \x1f\x8b \x28\xb5\x2f\xfd".split(b" "),
    *(b"user,item\n", b"user\titem\ttimestamp\n", b"user_id:token\titem_id:token\n", b"user,item,rating,timestamp\n"),
    *(b"a,b,1,2\n", b"1\t2\t3\t4\n", b"1::2::3::4\n", b"0 1 2\n"),
]
ANY_BYTES = st.binary() | st.lists(st.sampled_from(PIECES)).map(b"".join)
TEXT_FORMATS = ("csv", "tsv", "recbole", "movielens-dat", "movielens-data", "triples", "citeulike")
REVIEWS = "user,item,timestamp,review\n" + 'u,i,1,"one\ntwo"\n' * 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read_or_refuse(path: Path, format_name: str | None, *, as_written: bool) -> RawTable | str:
    try:
        return read_table(path, format_name, ColumnNames(ids_as_written=as_written))
    except DataError as error:
        return str(error)


def is_bad_id(value: str) -> bool:
    return not value or any(ord(letter) < 32 or ord(letter) == 127 for letter in value)


@pytest.mark.fuzz
@given(
    rows=st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=8),
    # The csv module of Python 3.11 quotes a line end only where it is the file's own.
    lines=st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL), ("\r", csv.QUOTE_ALL)]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    packing=st.sampled_from(sorted(PACKINGS)),
    name=st.sampled_from(["ids.csv", "ids.tsv"]),
)
def test_what_the_csv_module_writes_is_read_back_or_refused_for_its_ids(
    folder: Path,
    rows: list[tuple[str, str, str]],
    lines: tuple[str, Literal[0, 1]],
    encoding: str,
    packing: str,
    name: str,
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="," if name == "ids.csv" else "\t", lineterminator=lines[0], quoting=lines[1])
    writer.writerows([("user_id", "note", "item_id"), *rows])
    path = folder / f"{name}{packing}"
    path.write_bytes(PACKINGS[packing](text.getvalue().encode(encoding)))
    expected = [(user, item) for user, _, item in rows]
    found = read_or_refuse(path, None, as_written=True)
    if any(is_bad_id(value) for pair in expected for value in pair):
        assert isinstance(found, str)
        assert "\n" not in found
    else:
        assert not isinstance(found, str), found
        users, items = found.user_ids[found.user_index].tolist(), found.item_ids[found.item_index].tolist()
        assert list(zip(users, items, strict=True)) == expected


@pytest.mark.fuzz
@given(content=ANY_BYTES, format_name=st.sampled_from(TEXT_FORMATS), as_written=st.booleans())
def test_any_bytes_are_a_table_or_one_line_that_refuses(
    folder: Path, content: bytes, format_name: str, as_written: bool
) -> None:
    path = folder / "any"
    path.write_bytes(content)
    found = read_or_refuse(path, format_name, as_written=as_written)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert found.num_rows == len(found.user_index) == len(found.item_index) > 0
        assert all(found.user_ids)
        assert all(found.item_ids)


def test_line_breaks_in_quotes_may_stand_on_the_edge_of_a_block(tmp_path: Path) -> None:
    rows = 30_000
    path = tmp_path / "reviews.csv"
    path.write_text("user,item,review\n" + "".join(f'u{row},i{row % 9},"{"x" * 40}\ny"\n' for row in range(rows)))
    assert path.stat().st_size > BLOCK_BYTES
    assert read_delimited(path, ",", quotes="always").table.num_rows == rows


@pytest.mark.parametrize("length", [200_000, 3 * BLOCK_BYTES])
def test_a_field_of_any_length(tmp_path: Path, length: int) -> None:
    path = tmp_path / "long.csv"
    path.write_text(f'user,item,"{"h" * 140_000}"\na,b,{"x" * length}\nc,d,\n')
    assert read_table(path).user_ids.tolist() == ["a", "c"]
    path.write_text(f"user,item,note\na,b,{'x' * length}\nc,d\n")
    with pytest.raises(DataError, match=r"long\.csv: line 3: 2 fields, expected 3"):
        read_table(path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path, line_end: str) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text((REVIEWS + 'u,j,x,"one\ntwo"\n').replace("\n", line_end), newline="")
    with pytest.raises(DataError, match=r"reviews\.csv: line 62: column 'timestamp' is 'x', not a time"):
        read_table(path)
    path.write_text((REVIEWS + "\n\nu,j,1\n").replace("\n", line_end), newline="")
    with pytest.raises(DataError, match=r"reviews\.csv: line 64: 3 fields, expected 4"):
        read_table(path)


def test_empty_lines_before_the_header_and_spaces_around_its_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n\r\n user , item \n1,2\n,3\n")
    with pytest.raises(DataError, match="line 5: column ' user ' is empty"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('user,item,note\n1,2,"great\n3,4,fine\n5,6,bad\n', r"line 2: a value in quotes is not closed"),
        ('user,item,note\n1,2,"great\n3,4,"bad"\n5,6,x\n', r"line 2: a value in quotes is not closed"),
        ('user,item\n1,"2\n3,"4\n', r"line 2: a value in quotes is not closed"),
        ('user,item\n1,"2\n3,4"\n', r"line 2: item id '2\\n3,4' has a control character"),
    ],
)
def test_a_quote_left_open_swallows_no_line_in_silence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_tsv_takes_quotes_where_all_that_open_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('"user"\t"item"\t"title"\n"1"\t"a ""b"""\t"x\ty"\n')
    quoted = read_table(path)
    assert quoted.item_ids.tolist() == ['a "b"']
    path.write_text('user\titem\ttitle\n1\ta\t"Heroes\n1\tb\t"Weird Al" Yankovic\n')
    text = read_table(path)
    assert text.item_ids.tolist() == ["a", "b"]
    assert text.reading is not None
    assert text.reading.notes == ("a.tsv: not every quote that opens is closed: quotes are read as text",)
