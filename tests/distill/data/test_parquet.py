from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data.raw_table import RawTable
from distill.data.readers import detect_format, read_table
from distill.errors import DataError

LOG = pa.table({"user_id": ["a", "b", "c"], "item_id": ["x", "y", "x"], "timestamp": [1, 2, 3]})


def write_parts(folder: Path, names: list[str]) -> Path:
    for row, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(LOG.slice(row, 1), folder / name)
    return folder


def test_part_files_are_one_table_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "spark.parquet", [f"part-0000{part}.snappy.parquet" for part in (0, 1, 2)])
    (folder / "_SUCCESS").touch()
    for source in (folder, tmp_path):
        assert detect_format(source) == "parquet"
        assert read_table(source).user_ids.tolist() == ["a", "b", "c"]


def test_hive_partitions_are_one_table_and_their_keys_columns(tmp_path: Path) -> None:
    days = [f"dt=2024-01-0{day}/part.parquet" for day in (1, 2, 3)]
    table = read_table(write_parts(tmp_path / "log", days))
    assert table.user_ids.tolist() == ["a", "b", "c"]
    assert table.reading is not None
    assert table.reading.unread_columns == ("dt",)
    assert table.reading.files == tuple(days)


def test_two_tables_in_a_folder_are_refused(tmp_path: Path) -> None:
    write_parts(tmp_path, ["one.parquet", "two.parquet/part.parquet"])
    with pytest.raises(DataError, match=r"2 files match \*\.parquet \(one\.parquet, two\.parquet\), expected one"):
        read_table(tmp_path)
    write_parts(tmp_path / "flat", ["interactions.parquet"])
    pq.write_table(pa.table({"item_id": ["x"], "title": ["X"]}), tmp_path / "flat" / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet: it and interactions\.parquet are no parts of one table"):
        read_table(tmp_path / "flat")


def test_parts_may_differ_in_width_and_a_fault_names_its_part(tmp_path: Path) -> None:
    pq.write_table(LOG, tmp_path / "part-0.parquet")
    other = LOG.set_column(2, "timestamp", pa.array([4, None, 6], pa.int32()))
    pq.write_table(other.set_column(0, "user_id", LOG["user_id"].cast(pa.large_string())), tmp_path / "part-1.parquet")
    with pytest.raises(DataError, match=r"part-1\.parquet: row 2: column 'timestamp' is None, not a time"):
        read_table(tmp_path)


TEXT = pa.array(["7", "8"])


@pytest.mark.parametrize(
    "users",
    [
        TEXT.cast(pa.large_string()),
        TEXT.cast(pa.string_view()),
        TEXT.cast(pa.binary()),
        TEXT.dictionary_encode(),
        TEXT.cast(pa.large_string()).dictionary_encode(),
        pa.array([7, 8], pa.uint64()),
        pa.array([7, 8], pa.int8()),
        pa.array([7.0, 8.0]),
        pa.array([7.0, 8.0], pa.float16()),
        pa.array([7, 8]).cast(pa.decimal128(38, 0)),
    ],
    ids=lambda users: str(users.type),
)
def test_ids_of_any_type_that_can_be_one(tmp_path: Path, users: Any) -> None:
    pq.write_table(pa.table({"user_id": users, "item_id": users}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").user_ids.tolist() == ["7", "8"]


@pytest.mark.parametrize(
    "users",
    [
        pa.array([True, False]),
        pa.array([[1], [2]]),
        pa.array([{"id": 1}, {"id": 2}]),
        pa.array([1, 2], pa.timestamp("us")),
        pa.array([b"\xff", b"a"]),
        pa.array([b"0123456789abcdef"] * 2, pa.binary(16)),
    ],
    ids=lambda users: str(users.type),
)
def test_types_that_can_be_no_id(tmp_path: Path, users: Any) -> None:
    pq.write_table(pa.table({"user_id": users, "item_id": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: column 'user_id' .*; store (ids as integers or )?strings"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "times",
    [
        pa.array([timedelta(seconds=1), timedelta(seconds=2)]),
        pa.array([1, 2], pa.time64("us")),
        pa.array([1, 2], pa.time32("ms")),
        pa.array([True, False]),
        pa.array([[1], [2]]),
        pa.array([{"a": 1}, {"a": 2}]),
    ],
    ids=lambda times: str(times.type),
)
def test_types_that_are_no_point_in_time(tmp_path: Path, times: Any) -> None:
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": [1, 2], "timestamp": times}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"'timestamp' is of type .*, no point in time; store a timestamp or number"):
        read_table(tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": [1, 2], "rating": times}), tmp_path / "a.parquet")
    if not pa.types.is_boolean(times.type):
        with pytest.raises(DataError, match=r"row 1: column 'rating' is .*, not a number"):
            read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1, 2], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([1, 2], pa.date32()),
        pa.array([1, 2], pa.uint32()),
        pa.array([1.5, 2.5]),
        pa.array([1, 2]).cast(pa.decimal128(20, 0)),
        pa.array(["1970-01-01", "1970-01-02"]).cast(pa.string_view()),
    ],
    ids=lambda times: str(times.type),
)
def test_points_in_time_of_any_type(tmp_path: Path, times: Any) -> None:
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": [1, 2], "timestamp": times}), tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet").timestamps
    assert found is not None
    assert np.diff(found)[0] >= 0


@pytest.mark.parametrize(("kind", "bits"), [(pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53)])
def test_float_ids_are_read_as_long_as_all_whole_numbers_are_exact(tmp_path: Path, kind: Any, bits: int) -> None:
    path = tmp_path / "a.parquet"

    def read(largest: int) -> RawTable:
        users = pa.array(np.array([1, largest]).astype(kind.to_pandas_dtype()), kind)
        pq.write_table(pa.table({"user_id": users, "item_id": [1, 2]}), path)
        return read_table(path)

    table = read(2**bits - 1)
    assert table.user_ids.tolist() == ["1", str(2**bits - 1)]
    assert table.reading is not None
    assert table.reading.notes == (
        f"{path}: column 'user_id' is of type {kind}: ids are its whole numbers, without '.0'",
    )
    message = rf"row 2: column 'user_id' is {2**bits}, too large .* numbers from {2**bits:,} on; store ids as int64 or"
    with pytest.raises(DataError, match=message):
        read(2**bits + 1)
