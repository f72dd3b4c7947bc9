from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp

from distill.baselines import BASELINES, GRIDS, Baseline, ease, item_knn, popularity, tune
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.protocol import Protocol, evaluate_scores
from tests.distill.toy import build_interactions, build_random

Dense = npt.NDArray[np.float64]


def scores_of(baseline: Baseline, train: sp.csr_matrix) -> Dense:
    return np.asarray(baseline.score_rows(np.arange(train.shape[0])), dtype=np.float64)


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


def dense_ease(taken: Dense, regularization: float) -> Dense:
    """The listing of Steck's paper, in float64."""
    gram = taken.T @ taken
    diagonal = np.diag_indices(gram.shape[0])
    gram[diagonal] += regularization
    precision = np.linalg.inv(gram)
    weights = precision / -np.diag(precision)
    weights[diagonal] = 0
    scores: Dense = taken @ weights
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


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (25, 25)])
@pytest.mark.parametrize("regularization", [0.5, 20.0])
def test_ease_equals_steck_whichever_side_is_inverted(
    rng: np.random.Generator, shape: tuple[int, int], regularization: float
) -> None:
    taken = (rng.random(shape) < 0.2).astype(np.float64)
    taken[:, -1] = 0  # an item nobody took
    train = sp.csr_matrix(taken.astype(np.float32))
    baseline = ease(train, regularization)
    np.testing.assert_allclose(scores_of(baseline, train), dense_ease(taken, regularization), atol=2e-5)
    side = min(shape)
    assert baseline.num_bytes == 4 * (side**2 + (shape[1] if shape[0] < shape[1] else 0))


def test_ease_by_hand() -> None:
    # Two items taken together by both users: G = [[2, 2], [2, 2]], so B_01 = 2 / (2 + λ).
    train = sp.csr_matrix(np.array([[1, 1], [1, 1], [1, 0]], dtype=np.float32)[:2])
    np.testing.assert_allclose(scores_of(ease(train, 2.0), train), np.full((2, 2), 0.5), rtol=1e-5)


def test_ease_refuses_what_it_has_no_memory_for(rng: np.random.Generator) -> None:
    train = build_random(rng).train
    assert train.shape == (30, 25)
    ease(train, 1.0, max_bytes=7500)
    with pytest.raises(SettingError, match=r"25 × 25 needs 7,500 bytes, and 7,499 are allowed; .*--ease-max-bytes"):
        ease(train, 1.0, max_bytes=7499)
    with pytest.raises(SettingError, match="regularization: 0"):
        ease(train, 0.0)


@pytest.mark.parametrize("build", [lambda train: item_knn(train, 12, 0.0), lambda train: ease(train, 1.0)])
def test_the_checkerboard_is_learned(checkerboard: Interactions, build: Callable[[sp.csr_matrix], Baseline]) -> None:
    baseline = build(checkerboard.train)
    protocol = Protocol(mask="train+validation", cutoffs=(1,))
    assert evaluate_scores(baseline.score_rows, checkerboard, protocol).metrics["Recall@1"] == 1.0


@pytest.mark.parametrize("name", list(BASELINES))
def test_tuning_keeps_the_point_that_is_best_on_validation(rng: np.random.Generator, name: str) -> None:
    data = build_random(rng)
    tuned = tune(name, data)
    assert [{k: v for k, v in point.items() if k != "NDCG@10"} for point in tuned.tried] == list(GRIDS[name])
    best = max(point["NDCG@10"] for point in tuned.tried)
    again = BASELINES[name](data.train, **tuned.settings)
    value = evaluate_scores(again.score_rows, data, Protocol(split="validation")).metrics["NDCG@10"]
    assert value == pytest.approx(best, abs=1e-6)
    np.testing.assert_allclose(scores_of(tuned.baseline, data.train), scores_of(again, data.train))
    assert tuned.seconds >= 0


def test_tuning_without_validation_is_refused() -> None:
    data = build_interactions((2, 12), train=[(0, 0), (1, 1)], test=[(0, 1)])
    with pytest.raises(SettingError, match="no validation interactions"):
        tune("popularity", data)
