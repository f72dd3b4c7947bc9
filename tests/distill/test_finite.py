from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distill.finite import LONGEST, find_flaw


def with_value(value: float, dtype: Any = np.float32) -> Any:
    matrix = np.ones((5, 3), dtype=dtype)
    matrix[2, 1] = matrix[4, 0] = value
    return matrix


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_can_be_scored_with_has_no_flaw(dtype: Any) -> None:
    assert find_flaw(with_value(0.0, dtype)) is None
    assert find_flaw(np.empty((0, 3), dtype)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_not_finite_is_counted_and_found(value: float, dtype: Any) -> None:
    assert find_flaw(with_value(value, dtype)) == "2 of 15 numbers are not finite, the first in row 2"


def test_no_dimension_is_a_flaw() -> None:
    assert "dimension 0" in str(find_flaw(np.empty((4, 0), np.float32)))


def test_rows_whose_products_overflow_are_a_flaw_and_the_longest_that_do_not_are_none() -> None:
    assert "row 1 has length 2e+19" in str(find_flaw(np.array([[1.0], [2e19]], np.float32)))
    longest = np.array([[LONGEST * 0.999]], np.float32)
    assert find_flaw(longest) is None
    assert np.isfinite(longest @ longest.T).all()
