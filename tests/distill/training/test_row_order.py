from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import DataError
from distill.training.row_order import order_rows, read_ids

IDS = ["b", "a,c", "ç"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_text_holds_an_id_a_line(tmp_path: Path, newline: str, start: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes((start + newline.join(IDS) + newline).encode())
    assert read_ids(path) == IDS


@pytest.mark.parametrize("header", ["id", "user_id,name", "name,item_id", "anything"])
def test_csv_holds_them_in_a_column(tmp_path: Path, header: str) -> None:
    path, columns = tmp_path / "ids.csv", header.split(",")
    cells = [[f'"{value}"' if "id" in name or len(columns) == 1 else "x" for name in columns] for value in IDS]
    path.write_text("\n".join([header, *(",".join(row) for row in cells)]), encoding="utf-8")
    assert read_ids(path) == IDS


@pytest.mark.parametrize(
    ("array", "ids"),
    [
        (np.array(IDS), IDS),
        (np.array([value.encode() for value in IDS]), IDS),
        (np.array([7, 5]), ["7", "5"]),
    ],
)
def test_npy_holds_text_or_whole_numbers(tmp_path: Path, array: np.ndarray, ids: list[str]) -> None:
    np.save(tmp_path / "ids.npy", array)
    assert read_ids(tmp_path / "ids.npy") == ids


def test_parquet_holds_them_in_a_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"embedding": [1, 2], "id": [7, 5]}), tmp_path / "ids.parquet")
    assert read_ids(tmp_path / "ids.parquet") == ["7", "5"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), pa.large_string()])
def test_text_of_parquet_that_is_not_called_text(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"id": pa.array([value.encode() for value in IDS]).cast(kind)}), tmp_path / "ids.parquet")
    assert read_ids(tmp_path / "ids.parquet") == IDS


def test_what_is_no_id_is_not_made_one(tmp_path: Path) -> None:
    for ids, message in (
        (pa.array([["a"], ["b"]]), "ids are of type list"),
        (pa.array([True, False]), "ids are of type bool"),
        (pa.array(["a", None]), "id 2 is empty"),
        (pa.array([None, None]), "id 1 is empty"),
        (pa.array([b"\xff"]), "unreadable ids"),
    ):
        pq.write_table(pa.table({"id": ids}), tmp_path / "ids.parquet")
        with pytest.raises(DataError, match=message):
            read_ids(tmp_path / "ids.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "unreadable ids"),
        ("ids.txt", b"a\n\nb\n", "id 2 is empty"),
        ("ids.txt", b"\xff\xfe\x00", "unreadable ids"),
        ("ids.csv", b"name,age\nx,1\n", "which of the columns name, age holds the ids"),
        ("ids.csv", b"user_id,item_id\nx,1\n", "which of the columns user_id, item_id holds the ids"),
        ("ids.csv", b"", "which of the columns"),
        ("ids.csv", b"id,id\nx,y\n", "which of the columns id, id holds the ids"),
        ("ids.npy", b"no array", "unreadable ids"),
        ("ids.parquet", b"no table", "unreadable ids"),
    ],
)
def test_each_way_of_being_wrong_has_its_message(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_ids(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_are_no_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.ones(3))
    with pytest.raises(DataError, match="float64, where one dimension of text or whole numbers is needed"):
        read_ids(tmp_path / "ids.npy")


def test_rows_are_put_in_the_order_of_the_data() -> None:
    order, understood = order_rows(Path("x/ids.txt"), ["c", "spare", "a", "b"], np.array(["a", "b", "c"]))
    assert order.tolist() == [2, 3, 0]
    assert understood == "in order by the ids of ids.txt, 1 rows of ids the data lacks left out"


def test_forms_that_prepare_drops_are_dropped_of_rows_too() -> None:
    order, _ = order_rows(Path("ids.txt"), ["7.0 ", " 5.0"], np.array(["5", "7"]))
    assert order.tolist() == [1, 0]
    as_written, _ = order_rows(Path("ids.txt"), ["7.0", "7"], np.array(["7", "7.0"]))
    assert as_written.tolist() == [1, 0]
