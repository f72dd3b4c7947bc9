from __future__ import annotations

import numpy as np
import pytest

from export.bundle.rescoring import rescore


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_best_candidates_by_their_own_vectors(dtype: str) -> None:
    items = np.array([[1, 0], [3, 0], [2, 0], [9, 9]]).astype(dtype)
    scores, rows = rescore(items, np.array([[1, 0], [-1, 0]], dtype=np.float32), np.array([[0, 1, 2], [2, 1, 0]]), 2)
    assert rows.tolist() == [[1, 2], [0, 2]]
    assert scores.tolist() == [[3, 2], [-1, -2]]
    assert scores.dtype == np.float32


def test_what_an_index_did_not_find_is_not_found_here() -> None:
    items = np.ones((3, 2), dtype=np.float32)
    scores, rows = rescore(items, np.ones((1, 2), dtype=np.float32), np.array([[2, -1, -1]]), 3)
    assert rows.tolist() == [[2, -1, -1]]
    assert scores.tolist() == [[2, -np.inf, -np.inf]]
