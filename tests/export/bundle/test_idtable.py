from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import idtable
from export.bundle.arrays import Array
from export.bundle.errors import DuplicateIds, MalformedArray, RowOutOfRange
from export.bundle.idtable import IdTable, StringColumn, write_id_table, write_string_column


def read(path: Path, kind: type[StringColumn]) -> dict[str, Array]:
    return {path.name + ending: np.load(path.with_name(path.name + ending)) for ending in kind.endings}


def open_table(path: Path) -> IdTable:
    return IdTable.from_arrays(path, read(path, IdTable))


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True), other=st.text())
def test_every_id_is_found_at_its_row_and_no_other_is(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], other: str
) -> None:
    path = tmp_path_factory.mktemp("ids") / "ids"
    write_id_table(path, ids)
    table = open_table(path)
    table.verify()
    assert len(table) == len(ids)
    assert table.take(range(len(ids))) == ids
    assert table.index_many(ids).tolist() == list(range(len(ids)))
    assert table.index_of(other) == (ids.index(other) if other in ids else -1)


def test_few_strings_are_kept_and_what_is_taken_twice_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idtable, "KEPT_STRINGS", 2)
    write_id_table(tmp_path / "ids", ["a", "b", "c"])
    table = open_table(tmp_path / "ids")
    for rows in ([0, 1], [2, 0, 1, 2], [1, 1], [0, 1, 2]):
        assert table.take(rows) == ["abc"[row] for row in rows]
        assert len(table._kept) <= 2
    with pytest.raises(RowOutOfRange, match="no row 3"):
        table.take([0, 3])
    with pytest.raises(RowOutOfRange, match="no row -1"):
        table.take([-1])


def test_a_lone_surrogate_is_unknown_not_an_error(tmp_path: Path) -> None:
    write_id_table(tmp_path / "ids", ["a"])
    assert open_table(tmp_path / "ids").index_of("\ud800") == -1


def test_slots_are_what_the_text_says(tmp_path: Path) -> None:
    write_id_table(tmp_path / "ids", ["a", "b", "c"])
    # int.from_bytes(blake2b(id, digest_size=8).digest(), "little") % 8
    assert np.load(tmp_path / "ids.slots.npy").tolist() == [0, -1, -1, -1, 1, -1, -1, 2]


def test_duplicate_ids_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DuplicateIds, match="'b'"):
        write_id_table(tmp_path / "ids", ["a", "b", "b"])


def test_text_that_is_not_unicode_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(MalformedArray, match="Unicode"):
        write_string_column(tmp_path / "titles", ["\udc80"])


def test_duplicate_ids_on_disk_are_found_by_verify(tmp_path: Path) -> None:
    write_id_table(tmp_path / "ids", ["a", "b"])
    arrays = read(tmp_path / "ids", IdTable)
    arrays["ids.bytes.npy"] = np.frombuffer(b"aa", dtype=np.uint8)
    with pytest.raises(DuplicateIds):
        IdTable.from_arrays(tmp_path / "ids", arrays).verify()


def test_slots_that_lead_nowhere_are_found_by_verify(tmp_path: Path) -> None:
    write_id_table(tmp_path / "ids", ["a", "b", "c"])
    arrays = read(tmp_path / "ids", IdTable)
    arrays["ids.slots.npy"] = np.roll(arrays["ids.slots.npy"], 1)
    with pytest.raises(MalformedArray, match="lead"):
        IdTable.from_arrays(tmp_path / "ids", arrays).verify()


@settings(max_examples=100, deadline=None)
@given(
    ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), unique=True, max_size=12),
    data=st.data(),
)
def test_verify_says_of_any_slots_what_looking_up_says(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ids") / "ids"
    write_id_table(path, ids)
    arrays = read(path, IdTable)
    arrays["ids.slots.npy"] = np.array(data.draw(st.permutations(arrays["ids.slots.npy"].tolist())), dtype=np.int32)
    table = IdTable.from_arrays(path, arrays)
    if [table.index_of(id_) for id_ in ids] == list(range(len(ids))):
        table.verify()
    else:
        with pytest.raises(MalformedArray, match="lead"):
            table.verify()


def test_verify_works_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idtable, "BLOCK_ROWS", 3)
    ids = [f"ï{number}" if number % 4 else "" * number + str(number) for number in range(20)]
    write_id_table(tmp_path / "ids", ids)
    open_table(tmp_path / "ids").verify()
    arrays = read(tmp_path / "ids", IdTable)
    arrays["ids.bytes.npy"][-2:] = arrays["ids.bytes.npy"][-4:-2]
    with pytest.raises((DuplicateIds, MalformedArray)):
        IdTable.from_arrays(tmp_path / "ids", arrays).verify()


def test_a_character_that_is_cut_between_two_rows_is_no_utf8() -> None:
    column = StringColumn(Path("titles"), np.array([0, 1, 2]), np.frombuffer("é".encode(), np.uint8))
    with pytest.raises(MalformedArray, match="row 0"):
        column.verify()


@pytest.mark.parametrize("slots", [[], [0, 1, 2], [0, 1, -1, -1], [0, 0, 1, 2, 0, 1, 2, 0]])
def test_a_table_in_which_probing_might_not_end_is_refused(tmp_path: Path, slots: list[int]) -> None:
    write_id_table(tmp_path / "ids", ["a", "b", "c"])
    arrays = read(tmp_path / "ids", IdTable)
    arrays["ids.slots.npy"] = np.asarray(slots, dtype=np.int32)
    with pytest.raises(MalformedArray):
        IdTable.from_arrays(tmp_path / "ids", arrays)


@pytest.mark.parametrize("row", [3, -2])
def test_slots_out_of_range_are_refused(tmp_path: Path, row: int) -> None:
    write_id_table(tmp_path / "ids", ["a", "b", "c"])
    arrays = read(tmp_path / "ids", IdTable)
    arrays["ids.slots.npy"] = np.where(arrays["ids.slots.npy"] == 0, row, arrays["ids.slots.npy"])
    with pytest.raises(RowOutOfRange):
        IdTable.from_arrays(tmp_path / "ids", arrays)


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 3], [0, 2, 1, 2]])
def test_offsets_that_do_not_rise_to_the_end_are_refused(offsets: list[int]) -> None:
    with pytest.raises(MalformedArray, match="rise"):
        StringColumn(Path("titles"), np.asarray(offsets, np.int64), np.zeros(2, np.uint8))


def test_bytes_that_are_not_utf8_are_named_by_row() -> None:
    column = StringColumn(Path("titles"), np.array([0, 1, 2]), np.frombuffer(b"a\xff", np.uint8))
    assert column.get(0) == "a"
    with pytest.raises(MalformedArray, match="row 1"):
        column.verify()


@pytest.mark.parametrize("row", [-1, 1])
def test_rows_do_not_wrap_around(row: int) -> None:
    column = StringColumn(Path("titles"), np.array([0, 1]), np.frombuffer(b"a", np.uint8))
    with pytest.raises(RowOutOfRange):
        column.get(row)
