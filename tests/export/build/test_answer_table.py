from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from export.build.answer_table import add_answers, rank_answers
from tests.export.toy import toy_contents

few_values = st.integers(-2, 2).map(float)


def oracle(
    users: npt.NDArray[np.float32], items: npt.NDArray[np.float32], had: npt.NDArray[np.bool_], length: int
) -> Iterator[tuple[list[int], list[float]]]:
    """Rows and scores by sorting everything in plain Python."""
    for vector, taken in zip(users, had, strict=True):
        left = [row for row in range(len(items)) if not taken[row]]
        rows = sorted(left, key=lambda row: (-float(items[row] @ vector), row))[:length]
        gap = length - len(rows)
        yield [*rows, *[-1] * gap], [*(float(items[row] @ vector) for row in rows), *[0.0] * gap]


@given(
    users=hnp.arrays(np.float32, (4, 3), elements=few_values),
    items=hnp.arrays(np.float32, (12, 3), elements=few_values),
    had=hnp.arrays(np.bool_, (4, 12)),
    length=st.integers(1, 12),
)
@settings(deadline=None, max_examples=60)
def test_the_best_that_is_left_equal_scores_by_rising_row(
    users: npt.NDArray[np.float32], items: npt.NDArray[np.float32], had: npt.NDArray[np.bool_], length: int
) -> None:
    rows, scores = rank_answers(users, items, sp.csr_matrix(had.astype(np.float32)), length)
    assert (rows.dtype.name, scores.dtype.name) == ("int32", "float32")
    assert list(zip(rows.tolist(), scores.tolist(), strict=True)) == list(oracle(users, items, had, length))


def test_half_precision_is_scored_in_single() -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(count, 5)).astype(np.float16) for count in (7, 300))
    rows, scores = rank_answers(users, items, sp.csr_matrix((7, 300), dtype=np.float32), 20)
    wide = users.astype(np.float32) @ items.astype(np.float32).T
    assert rows.tolist() == np.argsort(-wide, axis=1)[:, :20].tolist()
    np.testing.assert_allclose(scores, -np.sort(-wide, axis=1)[:, :20], rtol=1e-5)


def test_a_table_is_no_longer_than_the_catalogue() -> None:
    contents = add_answers(toy_contents(), sp.csr_matrix((3, 4), dtype=np.float32), 100)
    assert contents.answer_rows is not None
    assert contents.answer_rows.tolist() == [[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3]]
