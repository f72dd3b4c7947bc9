from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distill.data.prepare import deduplicate_pairs, kcore_mask

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    users, items = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    return users, items


def test_first_pairs_by_row_and_by_time() -> None:
    users, items = np.array([0, 0, 1, 0]), np.array([5, 6, 5, 5])
    assert deduplicate_pairs(users, items).tolist() == [0, 1, 2]
    assert deduplicate_pairs(users, items, np.array([9, 1, 1, 3])).tolist() == [1, 2, 3]
    assert deduplicate_pairs(users, items, np.array([3, 1, 1, 3])).tolist() == [0, 1, 2]


@given(pairs)
def test_first_pairs_are_the_first_of_each(rows: list[tuple[int, int]]) -> None:
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
