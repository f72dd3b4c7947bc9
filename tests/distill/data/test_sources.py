from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from distill.data.readers import detect_format, read_table
from distill.errors import DataError

PARTS = {
    "train": pa.table({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "x"], "rating": [5, 4, 3]}),
    "valid": pa.table({"user_id": ["a"], "item_id": ["z"], "rating": [5]}),
    "test": pa.table({"user_id": ["b"], "item_id": ["y"], "rating": [5]}),
}


def write_tsv(table: pa.Table, path: Path) -> None:
    pa_csv.write_csv(table, path, pa_csv.WriteOptions(delimiter="\t"))


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "csv": pa_csv.write_csv,
    "tsv": write_tsv,
    "parquet": pq.write_table,
}


@pytest.mark.parametrize("kind", sorted(WRITERS))
@pytest.mark.parametrize("validation", ["valid", "val", "validation", "dev"])
def test_a_ready_split_of_files(tmp_path: Path, kind: str, validation: str) -> None:
    for part, table in PARTS.items():
        WRITERS[kind](table, tmp_path / f"{validation if part == 'valid' else part}.{kind}")
    WRITERS[kind](PARTS["test"], tmp_path / f"extra.{kind}")
    assert detect_format(tmp_path) == kind
    found = read_table(tmp_path)
    assert found.splits is not None
    assert found.splits.tolist() == [0, 0, 0, 1, 2]
    assert found.has_validation
    assert found.item_ids[found.item_index].tolist() == ["x", "y", "x", "z", "y"]
    assert found.reading is not None
    assert found.reading.files == (f"train.{kind}", f"{validation}.{kind}", f"test.{kind}")
    assert found.reading.unread_files == (f"extra.{kind}",)


def test_names_that_only_end_with_the_word_and_no_validation(tmp_path: Path) -> None:
    pa_csv.write_csv(PARTS["train"], tmp_path / "ratings_train.csv")
    pa_csv.write_csv(PARTS["test"], tmp_path / "ratings_test.csv")
    found = read_table(tmp_path)
    assert found.splits is not None
    assert found.splits.tolist() == [0, 0, 0, 2]
    assert not found.has_validation
    pa_csv.write_csv(PARTS["test"], tmp_path / "small_train.csv")
    with pytest.raises(DataError, match=r"ratings_train\.csv and small_train\.csv are both one part of a split"):
        read_table(tmp_path)
    pa_csv.write_csv(PARTS["valid"], tmp_path / "train.csv")
    assert read_table(tmp_path).num_rows == 2


def test_a_split_of_recbole_has_titles(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"toy.{part}.inter").write_text("user_id:token\titem_id:token\n1\t2\n")
    (tmp_path / "toy.item").write_text("item_id:token\ttitle:token_seq\n2\tTwo\n")
    found = read_table(tmp_path)
    assert found.splits is not None
    assert found.splits.tolist() == [0, 1, 2]
    assert found.item_titles == {"2": "Two"}


def test_a_split_of_numbered_parts_and_of_folders(tmp_path: Path) -> None:
    (tmp_path / "numbered").mkdir()
    for name, part in (("train-00000-of-00002", "train"), ("train-00001-of-00002", "valid"), ("test", "test")):
        pq.write_table(PARTS[part], tmp_path / "numbered" / f"{name}.parquet")
    numbered = read_table(tmp_path / "numbered")
    assert numbered.splits is not None
    assert numbered.splits.tolist() == [0, 0, 0, 0, 2]
    for part, table in PARTS.items():
        folder = tmp_path / "folders" / f"{part}.parquet"
        folder.mkdir(parents=True)
        (folder / "_SUCCESS").touch()
        pq.write_table(table, folder / "part-00000.parquet")
    folders = read_table(tmp_path / "folders")
    assert folders.splits is not None
    assert folders.splits.tolist() == [0, 0, 0, 1, 2]


def test_columns_that_a_part_lacks_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("user,item,rating\na,x,1\na,y,2\n")
    (tmp_path / "test.csv").write_text("item,user\nz,a\n")
    found = read_table(tmp_path)
    assert found.ratings is None
    assert found.item_ids.tolist() == ["x", "y", "z"]
    assert found.reading is not None
    assert found.reading.notes == (f"{tmp_path}: not every file has the column 'rating': it is not read",)


def test_a_fault_is_named_with_the_file_of_the_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("user,item,rating\na,x,1\na,y,2\n")
    (tmp_path / "test.csv").write_text("user,item,rating\na,z,3\na,w,bad\n")
    with pytest.raises(DataError, match=r"test\.csv: line 3: column 'rating' is 'bad', not a number"):
        read_table(tmp_path)


def test_train_without_test_is_no_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("user,item\na,x\n")
    (tmp_path / "valid.csv").write_text("user,item\na,x\n")
    with pytest.raises(DataError, match=r"train\.csv has no test file beside it; add one, or give the file itself"):
        read_table(tmp_path)
    assert read_table(tmp_path / "train.csv").num_rows == 1
