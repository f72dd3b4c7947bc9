from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.prepare import SPLIT_METHODS, TEST, TRAIN, VALIDATION, assign_splits, carve_validation
from distill.errors import SettingError

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
