from __future__ import annotations

import numpy as np
import pytest

from distill.data.grouping import find_first_rows, group_rows, order_by_time


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_groups_as_a_stable_sort_does(count: int) -> None:
    rng = np.random.default_rng(count)
    index, times = rng.integers(20, size=count), rng.integers(5, size=count)
    assert np.array_equal(group_rows(index), np.argsort(index, kind="stable"))
    by_time = order_by_time(times)
    assert np.array_equal(group_rows(index, by_time), np.lexsort((times, index)))


def test_rows_of_a_log_are_in_order_already() -> None:
    assert order_by_time(np.array([1, 1, 2, 5])) is None
    order = order_by_time(np.array([2.5, 1.0, 2.5, 0.5]))
    assert order is not None
    assert order.tolist() == [3, 1, 0, 2]


def test_first_rows() -> None:
    index = np.random.default_rng(0).integers(0, 50, size=200) * 2
    numbers, first = find_first_rows(index)
    expected = np.unique(index, return_index=True)
    assert np.array_equal(numbers, expected[0])
    assert np.array_equal(first, expected[1])
    assert [len(found) for found in find_first_rows(np.empty(0, dtype=np.int64))] == [0, 0]
