from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import DataError
from distill.training import parquet_embeddings
from distill.training.parquet_embeddings import ParquetEmbeddings


def write(path: Path, lists: pa.Array, ids: pa.Array | None = None) -> Path:
    ids = pa.array([f"u{row}" for row in range(len(lists))]) if ids is None else ids
    pq.write_table(pa.table({"id": ids, "embedding": lists}), path, row_group_size=4)
    return path


@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64(), pa.int32(), pa.decimal128(13, 3)])
@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_lists_of_any_kind_are_read_in_the_wanted_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: pa.DataType, kind: str
) -> None:
    monkeypatch.setattr(parquet_embeddings, "BATCH_ROWS", 3)
    values = np.arange(22).reshape(11, 2)
    flat = pa.array(values.ravel().tolist(), pa.float64()).cast(pa.int32()).cast(number, safe=False)
    if number == pa.float16():
        flat = pa.array(values.ravel().astype(np.float16))
    lists = {
        "list": lambda: pa.ListArray.from_arrays(pa.array(range(0, 23, 2), pa.int32()), flat),
        "large": lambda: pa.LargeListArray.from_arrays(pa.array(range(0, 23, 2), pa.int64()), flat),
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, 2),
    }[kind]()
    source = ParquetEmbeddings(write(tmp_path / "a.parquet", lists))
    wanted = np.array([10, 0, 7, 3])
    found = source.read_rows(wanted)
    np.testing.assert_array_equal(found, values[wanted])
    assert found.dtype == (np.float16 if number == pa.float16() else np.float32)


def test_ids_of_any_type_are_their_text(tmp_path: Path) -> None:
    lists = pa.array([[1.0]] * 2)
    for ids, text in (
        (pa.array([7, 5]), ["7", "5"]),
        (pa.array([7.0, 5.5]), ["7.0", "5.5"]),
        (pa.array(["a", "ç"]).dictionary_encode(), ["a", "ç"]),
        (pa.array([7, 5]).dictionary_encode(), ["7", "5"]),
        (pa.array([b"a", "ç".encode()]), ["a", "ç"]),
        (pa.array(["7", "5"]).cast(pa.decimal128(20, 0)), ["7", "5"]),
    ):
        assert ParquetEmbeddings(write(tmp_path / "a.parquet", lists, ids)).read_ids() == text


def test_a_missing_id_is_not_the_text_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.array([[1.0]] * 2), pa.array(["a", None]))
    with pytest.raises(DataError, match="id 2 is empty"):
        ParquetEmbeddings(path).read_ids()


@pytest.mark.parametrize("twice", ["id", "embedding"])
def test_of_two_columns_of_one_name_none_is_taken(tmp_path: Path, twice: str) -> None:
    columns = {"id": pa.array(["a"]), "embedding": pa.array([[1.0]])}
    names = ["id", "embedding", twice]
    pq.write_table(pa.table([columns[name] for name in names], names=names), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=f"column '{twice}' is there 2 times"):
        ParquetEmbeddings(tmp_path / "a.parquet")


def test_bytes_that_changed_under_a_checksum_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    lists = pa.array(np.arange(4000.0).reshape(1000, 4).tolist())
    table = pa.table({"id": [f"u{row}" for row in range(1000)], "embedding": lists})
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[20_000:20_008] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        ParquetEmbeddings(path).read_rows(np.arange(1000))


def test_lists_that_differ_between_batches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_embeddings, "BATCH_ROWS", 2)
    path = write(tmp_path / "a.parquet", pa.array([[1.0], [2.0], [3.0, 4.0], [5.0, 6.0]]))
    with pytest.raises(DataError, match="lists of different lengths"):
        ParquetEmbeddings(path).read_rows(np.arange(4))


def test_a_number_that_is_missing_is_no_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.array([[1.0, None], [2.0, 3.0]]))
    assert np.isnan(ParquetEmbeddings(path).read_rows(np.arange(2))).tolist() == [[False, True], [False, False]]
