from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from distill.baselines import ease
from distill.errors import SettingError
from tests.distill.baselines.toy import Dense, scores_of
from tests.distill.toy import build_random


def ease_weights(taken: Dense, regularization: float) -> Dense:
    """The listing of Steck's paper, in float64."""
    gram = taken.T @ taken
    diagonal = np.diag_indices(gram.shape[0])
    gram[diagonal] += regularization
    precision = np.linalg.inv(gram)
    weights = precision / -np.diag(precision)
    weights[diagonal] = 0
    return np.asarray(weights)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (25, 25)])
@pytest.mark.parametrize("regularization", [0.5, 20.0])
def test_ease_equals_steck_whichever_side_is_inverted(
    rng: np.random.Generator, shape: tuple[int, int], regularization: float
) -> None:
    taken = (rng.random(shape) < 0.2).astype(np.float64)
    taken[:, -1] = 0  # an item nobody took
    train = sp.csr_matrix(taken.astype(np.float32))
    baseline = ease(train, regularization)
    np.testing.assert_allclose(scores_of(baseline, train), taken @ ease_weights(taken, regularization), atol=2e-5)
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


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_ease_scores_histories_of_new_users_as_steck_does(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    taken = (rng.random(shape) < 0.2).astype(np.float64)
    new = (rng.random((7, shape[1])) < 0.3).astype(np.float64)
    new[0] = 0
    found = ease(sp.csr_matrix(taken.astype(np.float32)), 3.0).score_histories(sp.csr_matrix(new.astype(np.float32)))
    np.testing.assert_allclose(found, new @ ease_weights(taken, 3.0), atol=2e-5)
