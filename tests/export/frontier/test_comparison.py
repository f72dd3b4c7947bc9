from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import SettingError
from export.frontier.choice import Row, are_level, compare_candidates, ratio_interval
from tests.export.frontier.toy import build_candidate


def row_of(recalls: np.ndarray) -> Row:
    mean = float(recalls.mean())
    return Row(build_candidate("any", mean, recalls=recalls.tolist()), mean, (mean, mean), None, True)


def test_the_interval_is_the_one_that_resampling_users_gives(rng: np.random.Generator) -> None:
    teacher = rng.uniform(0, 0.6, size=400)
    student = np.clip(0.9 * teacher + rng.normal(0, 0.05, size=400), 0, 1)
    draws = rng.integers(400, size=(4000, 400))
    resampled = np.quantile(student[draws].mean(axis=1) / teacher[draws].mean(axis=1), [0.025, 0.975])
    np.testing.assert_allclose(ratio_interval(student, teacher), resampled, atol=0.002)


def test_users_who_rise_and_fall_together_make_a_narrow_interval(rng: np.random.Generator) -> None:
    teacher = rng.uniform(0, 1, size=200)
    together = ratio_interval(0.97 * teacher, teacher)
    assert together == pytest.approx((0.97, 0.97))
    low, high = ratio_interval(0.97 * rng.permutation(teacher), teacher)
    assert high - low > 0.1


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=30), st.floats(0.5, 2))
def test_the_interval_holds_the_ratio_and_scales_with_it(values: list[float], factor: float) -> None:
    second = np.array(values)
    first = np.roll(second, 1)
    low, high = ratio_interval(first, second)
    assert low <= first.mean() / second.mean() + 1e-9
    assert high >= first.mean() / second.mean() - 1e-9
    assert ratio_interval(factor * first, second) == pytest.approx((factor * low, factor * high), abs=1e-9)


def test_level_means_that_the_users_cannot_tell(rng: np.random.Generator) -> None:
    base = rng.uniform(0, 0.5, size=500)
    noise = rng.normal(0, 0.1, size=500)
    shifted = row_of(base + noise - noise.mean() + 0.001)
    assert are_level(shifted, row_of(base))
    assert are_level(row_of(base), row_of(base))
    assert not are_level(row_of(base + noise - noise.mean() + 0.05), row_of(base))


def test_rows_are_set_against_the_first() -> None:
    teacher = build_candidate("teacher", 0.2, 256, method="teacher")
    rows = compare_candidates([teacher, build_candidate("same", 0.2, 64), build_candidate("worse", 0.1, 128)])
    assert [row.kept for row in rows] == [1.0, 1.0, 0.5]
    assert [row.kept_on_test for row in rows] == pytest.approx([1.0, 1.0, 0.5])
    assert [row.pareto for row in rows] == [False, True, False]
    assert rows[2].interval == pytest.approx((0.5, 0.5))


def test_a_teacher_that_finds_nothing_leaves_nothing_to_keep() -> None:
    with pytest.raises(SettingError, match="is 0, so nothing can be kept"):
        compare_candidates([build_candidate("teacher", 0.0)])
