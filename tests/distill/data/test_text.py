from __future__ import annotations

from pathlib import Path

import pytest

from distill.data.readers import read_table
from distill.data.text import count_lines, find_file, plain_name, read_bytes, read_text
from distill.errors import DataError
from tests.distill.data.packing import PACKINGS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_of_any_kind(tmp_path: Path, encoding: str, line_end: str) -> None:
    text = f"0 1 2{line_end}1 é3{line_end}"
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xfe\xff" + text.encode("utf-16-be") if encoding.endswith("mark") else text.encode(encoding))
    assert read_text(path) == "0 1 2\n1 é3\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["users.dat", "u.data", "ratings.dat", "a.inter", "a.csv", "a.tsv"])
def test_a_mark_in_files_of_any_format(tmp_path: Path, encoding: str, name: str) -> None:
    text = {
        "users.dat": "1 2\r1 3\r",
        "u.data": "1\t2\t3\t4\r\n",
        "ratings.dat": "1::2::3::4\r\n",
        "a.inter": "user_id:token\titem_id:token\r1\t2\r",
        "a.csv": "user,item\r1,2\r",
        "a.tsv": "user\titem\r1\t2\r",
    }[name]
    (tmp_path / name).write_bytes(text.encode(encoding))
    table = read_table(tmp_path)
    assert (table.user_ids[0], table.item_ids[0]) == ("1", "2")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_packed_files_are_told_by_their_content(tmp_path: Path, suffix: str) -> None:
    packed = PACKINGS[suffix](b"a,b\n")
    (tmp_path / "a.csv").write_bytes(packed)
    assert read_bytes(tmp_path / "a.csv") == b"a,b\n"
    (tmp_path / "cut.csv").write_bytes(packed[:-5])
    with pytest.raises(DataError, match=r"cut\.csv: cannot be unpacked as \w+ \(.*\); copy or compress it again"):
        read_bytes(tmp_path / "cut.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04x", r"a ZIP archive or a spreadsheet, not text; unpack it"),
        (b"\xfd7zXZ\x00x", r"xz compressed, not text; unpack it"),
        (b"BZh91AY&SYx", r"bzip2 compressed, not text; unpack it"),
        (b"PAR1x", r"Parquet, not text; give --format parquet"),
        (
            "user,item\n".encode("utf-16-le"),
            r"line 1: not UTF-8 text \(NUL bytes, as UTF-16 has them\); save",
        ),
        (b"\xff\xfea", r"a\.csv: not utf-16 text; save the file as UTF-8"),
        ("user,item\r1,é\r".encode("latin-1"), r"line 2: not utf-8 text; save the file as UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize(("content", "lines"), [(b"a", 1), (b"a\n", 1), (b"a\r\nb\rc\n\nd", 5), (b"\n", 1)])
def test_lines_are_counted(content: bytes, lines: int) -> None:
    assert count_lines(content) == lines


def test_names_of_packed_files(tmp_path: Path) -> None:
    assert [plain_name(Path(name)) for name in ("a.csv.gz", "a.csv.ZST", "a.csv")] == ["a.csv"] * 3
    (tmp_path / "u.item.gz").touch()
    assert find_file(tmp_path, "u.item").name == "u.item.gz"
    assert find_file(tmp_path, "u.data").name == "u.data"
