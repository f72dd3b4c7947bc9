from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.evaluation.significance import average_seeds, compare_pairs, holm

SLEEP_FIRST = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_SECOND = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
"""Student's own data (Biometrika 6, 1908): extra hours of sleep of ten patients under two drugs."""


def test_students_own_example_gives_the_published_numbers() -> None:
    """R's t.test(extra ~ group, data = sleep, paired = TRUE): t = -4.0621, p = 0.002833, -2.4598858 -0.7001142."""
    (found,) = compare_pairs({"first": SLEEP_FIRST, "second": SLEEP_SECOND})
    assert (found.first, found.second) == ("first", "second")
    assert found.difference == pytest.approx(-1.58)
    assert found.p_value == pytest.approx(0.002833, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142))
    assert found.corrected == found.p_value


def test_holm_gives_the_published_numbers() -> None:
    """R's p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"), here out of order."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.05, 0.02, 0.04])), [0.09, 0.05, 0.09, 0.08, 0.09])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1.0, 1.0])
    assert holm(np.array([])).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferronis(p_values: list[float]) -> None:
    given_values = np.array(p_values)
    adjusted = holm(given_values)
    assert np.all(adjusted >= given_values)
    assert np.all(adjusted <= np.minimum(len(p_values) * given_values, 1))
    order = np.argsort(given_values)
    assert np.all(np.diff(adjusted[order]) >= 0)


def test_every_pair_is_tested_and_corrected_together(rng: np.random.Generator) -> None:
    base = rng.normal(size=200)
    noise = rng.normal(scale=0.1, size=(2, 200))
    found = compare_pairs({"a": base, "b": base + 0.5 + noise[0], "c": base + noise[1] - noise[1].mean()})
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.corrected < 0.001 for pair in found] == [True, False, True]
    np.testing.assert_allclose([pair.corrected for pair in found], holm(np.array([pair.p_value for pair in found])))
    assert found[0].low < found[0].difference < found[0].high < 0
    assert json.loads(json.dumps(found[0].as_dict()))["p_corrected"] == found[0].corrected


def test_without_variation_there_is_nothing_to_doubt() -> None:
    flat = np.zeros(5)
    same, other = compare_pairs({"a": flat, "b": flat})[0], compare_pairs({"a": flat + 0.25, "b": flat})[0]
    assert (same.difference, same.p_value, same.corrected) == (0.0, 1.0, 1.0)
    assert (other.difference, other.low, other.high, other.p_value) == (0.25, 0.25, 0.25, 0.0)
    assert compare_pairs({"alone": flat}) == ()


def test_more_seeds_are_no_more_users(rng: np.random.Generator) -> None:
    """Ten copies of one run say no more than the run itself."""
    first, second = rng.normal(size=(2, 40))
    once = compare_pairs({"a": first, "b": second})[0]
    tenfold = compare_pairs({"a": average_seeds([first] * 10), "b": average_seeds([second] * 10)})[0]
    assert tenfold.p_value == pytest.approx(once.p_value)
    np.testing.assert_allclose(average_seeds([first, second]), (first + second) / 2)
