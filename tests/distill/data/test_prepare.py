from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.prepare import (
    SPLIT_METHODS,
    TEST,
    TRAIN,
    VALIDATION,
    PrepareOptions,
    assign_splits,
    carve_validation,
    deduplicate_pairs,
    kcore_mask,
    prepare,
)
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
    assert data.settings["validation"] == "drawn from train"


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


pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    users, items = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    return users, items


def test_duplicates_by_row_and_by_time() -> None:
    users, items = np.array([0, 0, 1, 0]), np.array([5, 6, 5, 5])
    assert deduplicate_pairs(users, items).tolist() == [0, 1, 2]
    assert deduplicate_pairs(users, items, np.array([9, 1, 1, 3])).tolist() == [1, 2, 3]
    assert deduplicate_pairs(users, items, np.array([3, 1, 1, 3])).tolist() == [0, 1, 2]


@given(pairs)
def test_kept_pairs_are_the_first_of_each(rows: list[tuple[int, int]]) -> None:
    expected = [place for place, row in enumerate(rows) if row not in rows[:place]]
    assert deduplicate_pairs(*columns(rows)).tolist() == expected


def test_kcore_goes_on_to_the_fixed_point() -> None:
    # Item 2 has one row; without it user 1 has one; without that, item 1 has one; then user 0 has one.
    users, items = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    assert not kcore_mask(users, items, 2, 2).any()
    assert kcore_mask(users, items, 2, 0).all()


def test_kcore_minimums_are_separate() -> None:
    users, items = np.array([0, 0, 0, 1]), np.array([0, 1, 2, 0])
    assert kcore_mask(users, items, 3, 0).tolist() == [True, True, True, False]
    assert kcore_mask(users, items, 0, 2).tolist() == [True, False, False, True]


@given(pairs, st.integers(0, 4), st.integers(0, 4))
def test_kcore_is_the_largest_set_that_satisfies(
    rows: list[tuple[int, int]], user_minimum: int, item_minimum: int
) -> None:
    users, items = columns(rows)
    alive = set(range(len(rows)))
    while True:  # drop one row at a time: another order, the same fixed point
        doomed = [
            row
            for row in sorted(alive)
            if sum(users[other] == users[row] for other in alive) < user_minimum
            or sum(items[other] == items[row] for other in alive) < item_minimum
        ]
        if not doomed:
            break
        alive.remove(doomed[0])
    assert set(np.flatnonzero(kcore_mask(users, items, user_minimum, item_minimum)).tolist()) == alive


user_rows = st.lists(st.integers(0, 5), min_size=1, max_size=80)


def split(users: list[int], method: str, **options: Any) -> np.ndarray:
    return assign_splits(np.array(users, dtype=np.int64), method, rng=np.random.default_rng(0), **options)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (2, 0, 1)), (5, (4, 0, 1)), (10, (8, 1, 1))]
)
def test_rounding_of_the_public_code(count: int, expected: tuple[int, int, int]) -> None:
    splits = split([0] * count, "ordered")
    assert tuple(np.bincount(splits, minlength=3).tolist()) == expected
    assert splits.tolist() == sorted(splits.tolist())


def test_ordered_keeps_file_order_of_interleaved_users() -> None:
    users = [0, 1] * 10
    splits = split(users, "ordered")
    for user in (0, 1):
        assert splits[np.array(users) == user].tolist() == [TRAIN] * 8 + [VALIDATION, TEST]


def test_temporal_goes_by_time_and_keeps_file_order_among_equals() -> None:
    times = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 1])
    splits = split([0] * 10, "temporal", timestamps=times)
    assert splits.tolist() == [TEST, VALIDATION] + [TRAIN] * 8
    tied = split([0] * 10, "temporal", timestamps=np.zeros(10))
    assert tied.tolist() == [TRAIN] * 8 + [VALIDATION, TEST]


def test_leave_one_out_by_time_by_order_and_of_small_users() -> None:
    users = [0, 0, 0, 1, 1, 2]
    assert split(users, "leave-one-out").tolist() == [TRAIN, VALIDATION, TEST, TRAIN, TRAIN, TRAIN]
    timed = split(users, "leave-one-out", timestamps=np.array([3, 2, 1, 9, 1, 5]))
    assert timed.tolist() == [TEST, VALIDATION, TRAIN, TRAIN, TRAIN, TRAIN]


def test_random_is_seeded() -> None:
    users = np.repeat(np.arange(20), 10)
    first, again, other = (assign_splits(users, "random", rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_other_ratios() -> None:
    splits = split([0] * 10, "ordered", ratios=(5, 2, 3))
    assert np.bincount(splits).tolist() == [5, 2, 3]


@given(user_rows, st.sampled_from(SPLIT_METHODS), st.integers(0, 9))
def test_every_user_keeps_train_and_has_the_sizes_of_the_rule(users: list[int], method: str, seed: int) -> None:
    rows = np.array(users, dtype=np.int64)
    rng = np.random.default_rng(seed)
    splits = assign_splits(rows, method, timestamps=rng.integers(0, 5, len(rows)), rng=rng)
    assert len(splits) == len(rows)
    for user in set(users):
        sizes = np.bincount(splits[rows == user], minlength=3).tolist()
        count = users.count(user)
        train = max(1, count * 8 // 10)
        validation = max(count * 9 // 10, train) - train
        expected = [train, validation, count - train - validation]
        if method == "leave-one-out":
            expected = [count - 2, 1, 1] if count >= 3 else [count, 0, 0]
        assert sizes == expected


@given(user_rows, st.integers(0, 9))
def test_nothing_later_is_trained_on(users: list[int], seed: int) -> None:
    rows = np.array(users, dtype=np.int64)
    times = np.random.default_rng(seed).integers(0, 5, len(rows))
    splits = assign_splits(rows, "temporal", timestamps=times)
    for user in set(users):
        own_times, own_splits = times[rows == user], splits[rows == user]
        for earlier, later in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
            before, after = own_times[own_splits == earlier], own_times[own_splits == later]
            assert not before.size or not after.size or before.max() <= after.min()


def test_carving_takes_a_ninth_of_train() -> None:
    users = np.repeat([0, 1], [19, 8])
    splits = np.array([TRAIN] * 18 + [TEST] + [TRAIN] * 8, dtype=np.int8)
    carved = carve_validation(users, splits, np.random.default_rng(0))
    assert np.bincount(carved[:19]).tolist() == [16, 2, 1]
    assert (carved[19:] == TRAIN).all()
    assert carved[18] == TEST


@pytest.mark.parametrize(("sizes", "validation"), [([2] * 10, 2), ([1, 1, 3], 1), ([8, 2], 1), ([2] + [1] * 30, 1)])
def test_small_users_give_a_ninth_of_all_and_keep_one_in_train(sizes: list[int], validation: int) -> None:
    users = np.repeat(np.arange(len(sizes)), sizes)
    carved = carve_validation(users, np.zeros(len(users), dtype=np.int8), np.random.default_rng(0))
    assert int((carved == VALIDATION).sum()) == validation
    assert set(users[carved == TRAIN]) == set(users)


def test_users_of_one_row_each_give_none() -> None:
    carved = carve_validation(np.arange(30), np.zeros(30, dtype=np.int8), np.random.default_rng(0))
    assert (carved == TRAIN).all()


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("by-mood", {}, "unknown method 'by-mood'"),
        ("temporal", {}, "no timestamps"),
        ("random", {}, "seeded generator"),
        ("ordered", {"ratios": (0, 1, 1)}, "train at least 1"),
        ("ordered", {"ratios": (8, -1, 1)}, "--ratios 8:-1:1"),
    ],
)
def test_settings_that_do_not_fit(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        assign_splits(np.array([0, 0]), method, **options)
