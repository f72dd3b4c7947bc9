from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data.item_metadata import ItemMetadata, read_item_metadata
from distill.data.raw_table import RawTable
from distill.data.readers import READERS, ColumnNames, detect_format, read_table
from distill.errors import DataError
from tests.distill.data.packing import PACKINGS

Files = dict[str, str]
RECBOLE = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def write(folder: Path, files: Files) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def pairs(table: RawTable) -> list[tuple[str, str]]:
    users, items = table.user_ids[table.user_index], table.item_ids[table.item_index]
    return list(zip(users.tolist(), items.tolist(), strict=True))


def test_citeulike_users_are_line_numbers_and_order_is_kept(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, {"users.dat": "2 07 3\n0\n3 9 3 1"}))
    assert pairs(table) == [("1", "07"), ("1", "3"), ("3", "9"), ("3", "3"), ("3", "1")]
    assert table.ratings is None
    assert table.splits is None


def test_lightgcn_keeps_the_split_and_original_ids(tmp_path: Path) -> None:
    files = {
        "train.txt": "0 0 1\n1 1 \n",
        "valid.txt": "0 2\n1\n",
        "test.txt": "1 0\n",
        "user_list.txt": "org_id remap_id\nann 0\nbob 1\n",
        "item_list.txt": "remap_id org_id extra\n0 x -\n1 y -\n2 z -\n",
    }
    table = read_table(write(tmp_path, files))
    assert pairs(table) == [("ann", "x"), ("ann", "y"), ("bob", "y"), ("ann", "z"), ("bob", "x")]
    assert table.splits is not None
    assert table.splits.tolist() == [0, 0, 0, 1, 2]
    assert table.has_validation
    assert pairs(read_table(tmp_path / "train.txt")) == pairs(table)


def test_lightgcn_without_validation_says_so(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, {"train.txt": "0 0 1\n", "test.txt": "0 2\n"}))
    assert table.splits is not None
    assert table.splits.tolist() == [0, 0, 2]
    assert not table.has_validation
    assert pairs(table) == [("0", "0"), ("0", "1"), ("0", "2")]


def test_recbole_with_titles(tmp_path: Path) -> None:
    files = {
        "toy.inter": RECBOLE + '196\t"2\t3\t881250949\n22\t7\t4.5\t878887116\n',
        "toy.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "7\tMépris, Le\t1963\tDrama Film-Noir\n8\tNo Year\t\t\n",
    }
    table = read_table(write(tmp_path, files))
    assert pairs(table) == [("196", '"2'), ("22", "7")]
    assert table.ratings is not None
    assert table.ratings.tolist() == [3.0, 4.5]
    assert table.timestamps is not None
    assert table.timestamps.tolist() == [881250949, 878887116]
    assert table.timestamps.dtype == np.int64
    assert table.item_titles == {"7": "Mépris, Le (1963)", "8": "No Year"}
    assert table.item_categories == {"7": ("Drama", "Film-Noir"), "8": ()}


def test_movielens_100k_with_titles(tmp_path: Path) -> None:
    write(tmp_path, {"u.data": "1\t2\t3\t4\n1\t5\t4\t3\n"})
    flags = "|".join("1" if place in {1, 5} else "0" for place in range(19))
    (tmp_path / "u.item").write_bytes(f"2|Été (1990)|01-Jan-1990||http://x|{flags}\n".encode("latin-1"))
    table = read_table(tmp_path)
    assert pairs(table) == [("1", "2"), ("1", "5")]
    assert table.item_titles == {"2": "Été (1990)"}
    assert table.item_categories == {"2": ("Action", "Comedy")}


def test_movielens_1m_with_titles_beside_its_own_users_dat(tmp_path: Path) -> None:
    write(tmp_path, {"ratings.dat": "1::2::3::4\n2::5::4::3\n", "users.dat": "1::F::1::10::48067\n"})
    (tmp_path / "movies.dat").write_bytes("2::Été: un film (1990)::Action|Comedy\n".encode("latin-1"))
    assert detect_format(tmp_path) == "movielens-dat"
    table = read_table(tmp_path)
    assert pairs(table) == [("1", "2"), ("2", "5")]
    assert table.item_titles == {"2": "Été: un film (1990)"}
    assert table.item_categories == {"2": ("Action", "Comedy")}


def test_csv_with_its_own_names_quotes_bom_and_dates(tmp_path: Path) -> None:
    text = '\ufeffwho,what,when,other\r\n1,"a,b",2024-01-05T12:00:00,\r\n\r\nü,c,2023-12-31,x\r\n'
    path = write(tmp_path, {"log.csv": text}) / "log.csv"
    table = read_table(path, columns=ColumnNames("who", "what", timestamp="when"))
    assert pairs(table) == [("1", "a,b"), ("ü", "c")]
    assert table.timestamps is not None
    assert np.diff(table.timestamps).tolist() == [-(5 * 24 + 12) * 3600 * 10**6]
    assert table.ratings is None


def test_csv_finds_movielens_names_and_takes_titles_given(tmp_path: Path) -> None:
    path = write(tmp_path, {"ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n"}) / "ratings.csv"
    table = read_table(path, metadata=ItemMetadata({"31": "Dangerous Minds"}, {"31": ("Drama",)}))
    assert pairs(table) == [("1", "31")]
    assert table.item_titles == {"31": "Dangerous Minds"}


def test_tsv_and_times_with_zone_or_fraction(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("user\titem\ttimestamp\n1\t2\t2024-01-01T00:00:01Z\n1\t3\t2024-01-01T00:00:00Z\n")
    zoned = read_table(path).timestamps
    path.write_text("user\titem\ttimestamp\n1\t2\t1.5\n1\t3\t1\n")
    fractional = read_table(path).timestamps
    assert zoned is not None
    assert fractional is not None
    assert np.diff(zoned).tolist() == [-(10**6)]
    assert fractional.tolist() == [1.5, 1.0]


@pytest.mark.parametrize("users", [pa.array([7, 8]), pa.array(["7", "8"]), pa.array(["7", "8"]).dictionary_encode()])
def test_parquet(tmp_path: Path, users: object) -> None:
    when = pa.array([10, 5], pa.timestamp("ns"))
    columns = {"user_id": users, "item_id": ["x", "y"], "rating": [1, 2], "timestamp": when}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    table = read_table(tmp_path / "log.parquet")
    assert pairs(table) == [("7", "x"), ("8", "y")]
    assert table.ratings is not None
    assert table.ratings.tolist() == [1.0, 2.0]


def test_format_overrides_the_name(tmp_path: Path) -> None:
    path = write(tmp_path, {"dump.txt": "user_id,item_id\n1,2\n"}) / "dump.txt"
    assert pairs(read_table(path, "csv")) == [("1", "2")]
    with pytest.raises(DataError, match=r"dump\.txt: cannot tell its format .* --format lightgcn"):
        detect_format(path)
    with pytest.raises(DataError, match="unknown format 'excel'; give one of lightgcn"):
        read_table(path, "excel")


def test_every_format_is_told_by_its_pattern(tmp_path: Path) -> None:
    for name, (_, pattern) in READERS.items():
        if pattern == "train.txt":
            continue
        path = tmp_path / pattern.replace("*", "x")
        for found in (path, path.with_name(path.name.upper()), path.with_name(f"{path.name}.gz")):
            found.touch()
            assert detect_format(found) == name


TOLD: list[tuple[Files, str]] = [
    ({"train.txt": "2 13 1\n2 11 1\n0 10 1\n", "test.txt": "1 10 1\n"}, "triples"),
    ({"train.txt": "a b 4.5 99\na c 1 98\n", "test.txt": "a d 2 97\n"}, "triples"),
    ({"train.txt": "a b\na c\n", "test.txt": "a d\n"}, "triples"),
    ({"train.txt": "0 1 2\n1 4 5\n", "test.txt": "0 3\n"}, "lightgcn"),
    ({"train.txt": "0 1 2\n0 4 5 6 7\n", "test.txt": "0 3\n"}, "lightgcn"),
    ({"train.txt": "0 1 2\n1 4 5\n", "test.txt": "0 3 4\n", "item_list.txt": ""}, "lightgcn"),
    ({"train.txt": "", "test.txt": ""}, "lightgcn"),
]


@pytest.mark.parametrize(("files", "name"), TOLD)
def test_lists_and_triples_are_told_apart_by_what_only_one_can_have(tmp_path: Path, files: Files, name: str) -> None:
    assert detect_format(write(tmp_path, files)) == name
    assert detect_format(tmp_path / "train.txt") == name


@pytest.mark.parametrize("train", ["0 1 2\n1 4 5\n", "0 1 2 3\n1 4 5 6\n", "0 1 2\n0 3 4 5\n"])
def test_what_could_be_either_is_refused(tmp_path: Path, train: str) -> None:
    write(tmp_path, {"train.txt": train, "test.txt": train})
    with pytest.raises(DataError, match="or 'user item rating'; give --format lightgcn or --format triples"):
        read_table(tmp_path)
    assert read_table(tmp_path, "lightgcn").num_rows > 2 * train.count("\n")


def test_files_of_several_formats_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"u.data": "1\t2\t3\t4\n", "a.csv": "user,item\n1,2\n"})
    with pytest.raises(DataError, match=r"fit several formats; give one by --format movielens-data\|csv"):
        read_table(tmp_path)
    assert pairs(read_table(tmp_path, "csv")) == [("1", "2")]


def test_triples_are_a_ready_split(tmp_path: Path) -> None:
    files = {"train.txt": "2 13 1\n2 11 1\n0 10 1\n0 11 1\n1 12 1\n", "valid.txt": "1 13 1\n2 10 1\n"}
    table = read_table(write(tmp_path, files | {"test.txt": "0 12 1\n1 10 1\n", "README.txt": "what it is\n"}))
    assert table.splits is not None
    assert np.bincount(table.splits).tolist() == [5, 2, 2]
    assert pairs(table)[:2] == [("2", "13"), ("2", "11")]
    assert table.ratings is not None
    assert table.timestamps is None
    assert table.reading is not None
    assert table.reading.format_name == "triples"
    assert table.reading.unread_files == ("README.txt",)


def test_triples_of_one_file_and_their_faults(tmp_path: Path) -> None:
    path = write(tmp_path, {"log.txt": "u1 i1 5 1700000000\nu1 i2 4 1700000001\n"}) / "log.txt"
    table = read_table(path, "triples")
    assert table.splits is None
    assert table.timestamps is not None
    path.write_text("u1 i1 5\nu1 i2\n")
    with pytest.raises(DataError, match=r"log\.txt: line 2: 2 fields, expected 3 .*or give --format lightgcn"):
        read_table(path, "triples")
    path.write_text("u1 i1 5\nu1 i2 good\n")
    with pytest.raises(DataError, match=r"log\.txt: line 2: column 'rating' is 'good', not a number"):
        read_table(path, "triples")


def test_users_on_several_lines_of_lists_are_told(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, {"train.txt": "0 1 2\n1 1\n0 3\n", "test.txt": "0 4\n"}))
    assert table.num_rows == 5
    assert table.reading is not None
    (note,) = table.reading.notes
    assert "train.txt: line 3: user 0 starts a line again, as 1 lines do" in note


@pytest.mark.parametrize("suffix", sorted(PACKINGS))
def test_text_of_any_format_may_be_packed(tmp_path: Path, suffix: str) -> None:
    texts = {
        "csv/a.csv": "user,item\n1,2\n",
        "tsv/a.tsv": "user\titem\n1\t2\n",
        "recbole/a.inter": "user_id:token\titem_id:token\n1\t2\n",
        "recbole/a.item": "item_id:token\ttitle:token\n2\tTwo\n",
        "dat/ratings.dat": "1::2::3::4\n",
        "dat/movies.dat": "2::Two::War\n",
        "data/u.data": "1\t2\t3\t4\n",
        "lists/train.txt": "1 2\n",
        "lists/test.txt": "1 2\n",
        "citeulike/users.dat": "1 2\n",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PACKINGS[suffix](text.encode()))
    for folder in tmp_path.iterdir():
        table = read_table(folder)
        assert pairs(table)[0] == ("1", "2")
        assert table.item_titles == ({"2": "Two"} if folder.name in {"recbole", "dat"} else {})


def test_columns_in_any_case(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.csv": "User ID,ITEM_ID,Rating, TimeStamp \n1,2,3,4\n"}) / "a.csv"
    table = read_table(path)
    assert table.ratings is not None
    assert table.timestamps is not None
    path.write_text("userId,user_id,item\n1,2,3\n")
    assert read_table(path).user_ids.tolist() == ["2"]
    path.write_text("UserID,User_Id,item\n1,2,3\n")
    with pytest.raises(DataError, match="columns 'UserID' and 'User_Id' are alike; name one by --user-column"):
        read_table(path)
    assert read_table(path, columns=ColumnNames(user="User_Id")).user_ids.tolist() == ["2"]


def test_words_for_a_missing_id(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.csv": "user,item\n1,2\nNaN,3\n"}) / "a.csv"
    with pytest.raises(DataError, match=r"a\.csv: line 3: user id 'NaN' is a word for a missing value; .*--ids"):
        read_table(path)
    assert read_table(path, columns=ColumnNames(ids_as_written=True)).user_ids.tolist() == ["1", "NaN"]


def test_ids_of_titles_take_the_form_of_those_of_interactions(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.csv": "user,item\n1,12.0\n1,7.0\n"}) / "a.csv"
    assert read_table(path).item_ids.tolist() == ["12", "7"]
    items = write(tmp_path, {"items.csv": "item_id,title\n12.0 ,Twelve\n"}) / "items.csv"
    assert read_item_metadata(items).titles == {"12": "Twelve"}
    assert read_item_metadata(items, ids_as_written=True).titles == {"12.0 ": "Twelve"}


BAD: list[tuple[Files, str, str]] = [
    ({"users.dat": "2 1 2\n3 4 5\n"}, "users.dat", r"users\.dat: line 2: starts with '3' but 2 items follow; give"),
    ({"users.dat": "1::F::1\n"}, "users.dat", r"users\.dat: line 1: starts with '1::F::1' but 0 items"),
    ({"users.dat": "1 1\n\n1 4\n"}, "users.dat", r"users\.dat: line 2: empty; remove the line"),
    ({"users.dat": "1 1\n1 b\n"}, "users.dat", r"users\.dat: line 2: 'b' is not a number; correct"),
    ({"users.dat": "0\n0\n"}, "users.dat", r"users\.dat: no interactions in it; give"),
    ({"users.dat": ""}, "users.dat", r"users\.dat: the file is empty; give"),
    ({"train.txt": "0 1\n"}, ".", r"train\.txt has no test file beside it; add one, or"),
    ({"train.txt": "0 1\n2 x\n", "test.txt": "0 2\n"}, ".", r"train\.txt: line 2: 'x' is not a number"),
    (
        {"train.txt": "0 1\n", "test.txt": "0 2\n", "item_list.txt": "org_id remap_id\na 1\n"},
        ".",
        r"item_list\.txt: no remap_id 2; add it",
    ),
    (
        {"train.txt": "0 1\n", "test.txt": "0 2\n", "item_list.txt": "org_id remap_id\na 1\na 2\n"},
        ".",
        r"item_list\.txt: an id is given twice; correct it",
    ),
    (
        {"train.txt": "0 1\n", "test.txt": "0 2\n", "item_list.txt": "org_id remap_id\na\n"},
        ".",
        r"item_list\.txt: line 2: 1 fields, expected 2; correct",
    ),
    (
        {"train.txt": "0 1\n", "test.txt": "0 2\n", "user_list.txt": "id number\n"},
        ".",
        r"user_list\.txt: line 1: expected the header 'org_id remap_id'",
    ),
    ({"a.inter": "user_id:token\titem_id\n1\t2\n"}, ".", r"a\.inter: line 1: field 'item_id' is not 'name:type'"),
    (
        {"a.inter": "user_id:token\titem_id:token_seq\n1\t2 3\n"},
        ".",
        r"a\.inter: column 'item_id' is a sequence \(token_seq\), no id; write a row for each id of it",
    ),
    (
        {f"a.{part}.inter": "user_id:token\titem_id:token_seq\n1\t2 3\n" for part in ("train", "test")},
        ".",
        r"column 'item_id' is a sequence \(token_seq\), no id; write a row for each id of it",
    ),
    ({"a.inter": RECBOLE + "1\t2\t3\n"}, ".", r"a\.inter: line 2: 3 fields, expected 4; correct the line"),
    (
        {"a.inter": RECBOLE, "b.inter": RECBOLE},
        ".",
        r"2 files match \*\.inter \(a\.inter, b\.inter\), expected one; give the file",
    ),
    ({"u.data": "1\t2\t3\t4\n1\t2\tx\t4\n"}, "u.data", r"u\.data: line 2: column 'rating' is 'x', not a number"),
    ({"ratings.dat": "1::2::3::\n"}, ".", r"ratings\.dat: line 1: column 'timestamp' is '', not a time; give"),
    ({"a.csv": "user,item,rating\n1,2,3\n\n4,5\n"}, "a.csv", r"a\.csv: line 4: 2 fields, expected 3; correct"),
    ({"a.csv": "user,item,rating\n1,2,3\n\n4,5,nan\n"}, "a.csv", r"a\.csv: line 4: column 'rating' is 'nan', not"),
    ({"a.csv": "user,item\n1,2\n,5\n"}, "a.csv", r"a\.csv: line 3: column 'user' is empty; fill it in"),
    ({"a.csv": "user,what\n1,2\n"}, "a.csv", r"a\.csv: no item column among user, what; name it by --item-column"),
    (
        {"a.csv": "user_id;item_id;rating\n1;2;3\n"},
        "a.csv",
        r"no user column among user_id;item_id;rating; fields seem to be parted by ';': save the file with commas",
    ),
    ({"a.csv": "user\titem\n1\t2\n"}, "a.csv", r"fields seem to be parted by '\\t': give --format tsv"),
    ({"a.tsv": "user,item\n1,2\n"}, "a.tsv", r"fields seem to be parted by ',': give --format csv"),
    ({"a.csv": "user,user\n1,2\n"}, "a.csv", r"a\.csv: line 1: a column name is given twice"),
    ({"a.csv": f"user,item\n1,{'x' * 300}\n"}, "a.csv", r"a\.csv: line 2: an id is 300 characters long \(limit 256\)"),
    (
        {"a.csv": "user,item,timestamp\n1,2,2024-01-01\n1,3,soon\n"},
        "a.csv",
        r"a\.csv: line 3: column 'timestamp' is 'soon', not a time; give seconds",
    ),
    ({"a.csv": "user,item,timestamp\n1,2,2024-01-01\n1,3,7\n"}, "a.csv", r"'timestamp' mixes forms of time"),
    ({"a.parquet": "PAR"}, "a.parquet", r"a\.parquet: unreadable Parquet .*; check the path and the file"),
    ({}, "gone.csv", r"gone\.csv: no such file or directory; check the path, or get a set"),
]


@pytest.mark.parametrize(("files", "name", "message"), BAD)
def test_malformed_input_is_named_with_a_remedy(tmp_path: Path, files: Files, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(tmp_path, files) / name)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "users.dat").write_bytes(b"1 1\n1 \xff\n")
    with pytest.raises(DataError, match=r"users\.dat: line 2: not utf-8 text; save the file as UTF-8"):
        read_table(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"user,item\n1,\xff\n")
    with pytest.raises(DataError, match=r"a\.csv: line 2: not utf-8 text; save the file as UTF-8"):
        read_table(tmp_path / "a.csv")


def test_column_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.csv": "user,item\n1,2\n"}) / "a.csv"
    with pytest.raises(DataError, match=r"no column 'stars'; it has user, item: name one of these"):
        read_table(path, columns=ColumnNames(rating="stars"))


@pytest.mark.parametrize(
    ("users", "ratings", "message"),
    [
        ([1.5, 2.0], [1, 2], "'user_id' is of type double; store ids as integers or strings"),
        ([2.0, 2.0**53], [1, 2], "row 2: column 'user_id' is 9007199254740992, too large for an id of type double"),
        ([1.0, float("nan")], [1, 2], "row 2: column 'user_id' is empty"),
        ([None, None], [1, 2], "row 1: column 'user_id' is empty"),
        ([1, None], [1, 2], "row 2: column 'user_id' is empty"),
        ([1, 2], [1, None], "row 2: column 'rating' is None, not a number"),
    ],
)
def test_parquet_with_bad_values(tmp_path: Path, users: list[object], ratings: list[object], message: str) -> None:
    pq.write_table(pa.table({"user_id": users, "item_id": [1, 2], "rating": ratings}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_of_a_ready_split_may_spell_columns_in_other_case(tmp_path: Path, kind: str) -> None:
    headers = {"train": "user_id,item_id,rating,timestamp", "test": "User ID,ITEM_ID,Rating,timestamp"}
    for part, header in headers.items():
        if kind == "csv":
            (tmp_path / f"{part}.csv").write_text(f"{header}\n1,2,3,4\n")
        else:
            pq.write_table(pa.table({name: [1] for name in header.split(",")}), tmp_path / f"{part}.parquet")
    table = read_table(tmp_path)
    assert table.ratings is not None
    assert len(table.ratings) == 2
    assert table.reading is not None
    assert table.reading.columns["user"] == "user_id"
    assert table.reading.notes == ()


def test_a_column_that_could_be_either_of_another_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"train.csv": "user,item,rating\n1,2,3\n", "test.csv": "user,item,Rating,RATING\n1,3,4,5\n"})
    table = read_table(tmp_path)
    assert table.ratings is None
    assert table.reading is not None
    assert table.reading.notes[0] == f"{tmp_path}: not every file has the column 'rating': it is not read"
