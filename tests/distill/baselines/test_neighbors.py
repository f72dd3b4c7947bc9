from __future__ import annotations

import numpy as np
import pytest

from distill.baselines import item_knn, popularity
from tests.distill.baselines.toy import Dense, scores_of
from tests.distill.toy import build_interactions, build_random


def dense_item_knn(taken: Dense, num_neighbors: int, shrink: float) -> Dense:
    """The definition, item by item; ties go to the lower item."""
    num_items = taken.shape[1]
    scores = np.zeros_like(taken)
    for item in range(num_items):
        similarity = np.zeros(num_items)
        for other in range(num_items):
            if other != item:
                common = float(taken[:, item] @ taken[:, other])
                size = np.sqrt(taken[:, item].sum() * taken[:, other].sum())
                similarity[other] = common / (size + shrink) if common else 0.0
        nearest = np.argsort(-similarity, kind="stable")[:num_neighbors]
        scores[:, item] = taken[:, nearest] @ similarity[nearest]
    return scores


def test_popularity_by_hand() -> None:
    data = build_interactions((3, 4), train=[(0, 0), (1, 0), (2, 0), (0, 3), (1, 3), (2, 1)])
    baseline = popularity(data.train)
    np.testing.assert_array_equal(baseline.score_rows(np.array([2, 0])), [[3, 1, 0, 2], [3, 1, 0, 2]])
    assert baseline.num_bytes == 16


def test_item_knn_by_hand() -> None:
    # Items 0 and 1 share two of their three and two users; item 2 shares one with item 0.
    data = build_interactions((4, 3), train=[(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 2), (3, 2)])
    scores = scores_of(item_knn(data.train, 1, 0.0), data.train)
    near, far = 2 / np.sqrt(6), 1 / np.sqrt(6)
    np.testing.assert_allclose(scores, [[near, near, far], [near, near, far], [0, near, far], [0, 0, 0]], rtol=1e-6)
    shrunk = scores_of(item_knn(data.train, 2, 1.0), data.train)
    assert shrunk[3, 0] == pytest.approx(1 / (np.sqrt(6) + 1))


@pytest.mark.parametrize("num_neighbors", [1, 3, 100])
@pytest.mark.parametrize("shrink", [0.0, 7.0])
def test_item_knn_equals_its_dense_definition(rng: np.random.Generator, num_neighbors: int, shrink: float) -> None:
    train = build_random(rng).train
    baseline = item_knn(train, num_neighbors, shrink)
    expected = dense_item_knn(train.toarray().astype(np.float64), num_neighbors, shrink)
    np.testing.assert_allclose(scores_of(baseline, train), expected, rtol=1e-5, atol=1e-6)
    links = np.minimum(num_neighbors, np.count_nonzero((train.T @ train).toarray(), axis=1) - 1).clip(min=0)
    assert baseline.num_bytes == 8 * links.sum() + 4 * (train.shape[1] + 1)
