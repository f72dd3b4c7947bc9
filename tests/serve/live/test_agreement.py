from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from serve.live.shadow import overlap, rank_correlation

LISTS = st.lists(st.integers(0, 12).map(str), unique=True, max_size=10)


def test_overlap_ignores_ranks_and_counts_missing_items() -> None:
    assert overlap(["a", "b", "c", "d"], ["d", "c", "x", "y"]) == 0.5
    assert overlap(["a", "b"], ["a", "b", "c", "d"]) == 0.5
    assert overlap([], []) == 1.0
    assert overlap(["a"], []) == 0.0


@given(LISTS, LISTS)
def test_correlation_is_spearmans_over_what_both_hold(first: list[str], second: list[str]) -> None:
    found = rank_correlation(first, second)
    common = [item for item in first if item in second]
    if len(common) < 2:
        assert found is None
        return
    expected = spearmanr(range(len(common)), [second.index(item) for item in common]).statistic
    assert found == pytest.approx(expected)
    assert overlap(first, second) == overlap(second, first)
