"""Both ways of leaving rows out give one result."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve.answers.selection import walk


@given(
    st.lists(
        st.tuples(st.sampled_from([3.0, 2.5, 1.0, -1.0]), st.integers(0, 30)), max_size=30, unique_by=lambda p: p[1]
    ),
    st.lists(st.integers(0, 30), max_size=10),
    st.integers(0, 3),
)
def test_a_walk_is_a_mask_and_a_sort(found: list[tuple[float, int]], blocked: list[int], missing: int) -> None:
    found.sort(key=lambda pair: -pair[0])
    scores = np.array([score for score, _ in found] + [-np.inf] * missing, dtype=np.float32)
    rows = np.array([row for _, row in found] + [-1] * missing, dtype=np.int64)
    keep = ~np.isin(rows, blocked) & (rows >= 0)
    order = np.lexsort((rows[keep], -scores[keep]))
    expected = (rows[keep][order].tolist(), scores[keep][order].tolist())
    assert walk(rows, scores, np.array(blocked, dtype=np.int32)) == expected
