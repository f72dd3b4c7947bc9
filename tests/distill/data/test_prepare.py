from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.prepare import PrepareOptions, prepare
from distill.data.public_sets import CATALOG
from distill.data.raw_table import RawTable
from distill.data.readers import read_table
from distill.errors import DataError, SettingError

REAL_DATA = Path(__file__).parents[4] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="no ../shared/data here")


def table(**more: Any) -> RawTable:
    rows = RawTable(
        user_ids=np.array(["a", "b", "c"]),
        item_ids=np.array(["10", "9", "8"]),
        user_index=np.array([1, 1, 1, 0, 2, 1]),
        item_index=np.array([2, 1, 0, 1, 2, 2]),
        ratings=np.array([5.0, 4.0, 3.0, 5.0, 2.0, 5.0]),
    )
    return replace(rows, **more)


def test_ids_are_numbered_by_first_appearance_of_what_remains() -> None:
    data = prepare(table(), PrepareOptions(rating_minimum=4, split="ordered"), name="toy")
    assert data.user_ids.tolist() == ["b", "a"]
    assert data.item_ids.tolist() == ["8", "9"]
    assert data.counts == {"users": 2, "items": 2, "train": 2, "validation": 0, "test": 1}
    assert data.train.toarray().tolist() == [[1, 0], [0, 1]]
    assert data.test.toarray().tolist() == [[0, 1], [0, 0]]


def test_the_earliest_of_duplicates_counts_where_the_split_goes_by_time() -> None:
    times = np.array([9, 5, 6, 1, 1, 1])  # (b, 8) twice: at 9 and, last in the file, at 1
    data = prepare(table(timestamps=times), PrepareOptions(split="leave-one-out"), name="toy")
    b_row = data.user_ids.tolist().index("b")
    assert data.item_ids[data.test[b_row].indices].tolist() == ["10"]
    assert data.item_ids[data.train[b_row].indices].tolist() == ["8"]


def test_a_ready_split_is_kept() -> None:
    splits = np.array([0, 1, 2, 0, 0, 2], dtype=np.int8)
    data = prepare(table(splits=splits), PrepareOptions(), name="toy")
    assert data.settings["split"] == "ready"
    assert data.counts == {"users": 3, "items": 3, "train": 3, "validation": 1, "test": 1}


def test_a_ready_split_without_validation_gets_one() -> None:
    raw = RawTable(
        np.array(["a"]),
        np.array([str(item) for item in range(20)]),
        np.zeros(20, dtype=np.int64),
        np.arange(20),
        splits=np.array([0] * 18 + [2] * 2, dtype=np.int8),
        has_validation=False,
    )
    data = prepare(raw, PrepareOptions(), name="toy")
    assert (data.train.nnz, data.validation.nnz, data.test.nnz) == (16, 2, 2)
    assert data.settings["validation"] == "random ninth of train"


@pytest.mark.parametrize(("times", "method"), [(None, "random"), (np.arange(6), "temporal")])
def test_auto_split(times: np.ndarray | None, method: str) -> None:
    data = prepare(table(timestamps=times), PrepareOptions(), name="toy", source={"reader": "csv"})
    assert data.settings == {
        "reader": "csv",
        "rating_minimum": None,
        "user_minimum": 0,
        "item_minimum": 0,
        "split": method,
        "ratios": "8:1:1",
        "seed": 0,
    }


def test_titles_are_there_and_unique() -> None:
    raw = table(item_titles={"10": "Same", "9": "Same"}, item_categories={"10": ("x",)})
    data = prepare(raw, PrepareOptions(split="ordered"), name="toy")
    titles = dict(zip(data.item_ids.tolist(), data.item_titles or (), strict=True))
    assert titles == {"8": "8", "9": "Same [9]", "10": "Same [10]"}
    categories = dict(zip(data.item_ids.tolist(), data.item_categories or (), strict=True))
    assert categories == {"8": (), "9": (), "10": ("x",)}


def test_nothing_left_names_the_settings() -> None:
    with pytest.raises(DataError, match=r"none of 6 .* lower --rating-min, --user-min or --item-min"):
        prepare(table(), PrepareOptions(user_minimum=50), name="toy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PrepareOptions(rating_minimum=4), "--rating-min: the source has no ratings"),
        (PrepareOptions(split="ready"), "--split ready: the source is not split"),
        (PrepareOptions(split="temporal"), "--split temporal: the data has no timestamps"),
        (PrepareOptions(item_minimum=-1), "--item-min"),
    ],
)
def test_settings_the_source_cannot_serve(options: PrepareOptions, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        prepare(table(ratings=None), options, name="toy")


@needs_real_data
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("citeulike-t", (5_219, 25_181, 98_405, 12_451, 14_724)),
        ("ml-100k", (938, 1_447, 43_919, 5_497, 5_945)),
        ("gowalla", (29_858, 40_981, 719_081, 91_047, 217_242)),
        ("ml-1m", (6_039, 3_628, 590_733, 80_897, 164_848)),
    ],
)
def test_catalogue_sets_count_what_they_must(name: str, counts: tuple[int, ...]) -> None:
    entry = CATALOG[name]
    started = time.perf_counter()
    data = prepare(read_table(REAL_DATA / name, entry.format_name), entry.options, name=name)
    assert tuple(data.counts.values()) == counts
    assert time.perf_counter() - started < 20
    assert (data.train.multiply(data.validation).nnz, data.train.multiply(data.test).nnz) == (0, 0)
    if name == "ml-100k":
        titles = dict(zip(data.item_ids.tolist(), data.item_titles or (), strict=True))
        assert titles["50"] == "Star Wars (1977)"
        assert all(data.item_categories or ())
