"""What every baseline must satisfy: a new one's test class inherits this and names it.

class TestEase(BaselineKit):
    name = "ease"
    settings = {"regularization": 3.0}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from distill.baselines import BASELINES, Baseline
from tests.distill.baselines.toy import random_interactions, scores_of


class BaselineKit:
    """Attributes: name in `BASELINES`; the settings it is tested under."""

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, float]] = {}

    @pytest.fixture(params=[(40, 15), (15, 40)], ids=["more-users", "more-items"])
    def train(self, request: pytest.FixtureRequest, rng: np.random.Generator) -> sp.csr_matrix:
        return random_interactions(rng, request.param)

    def fit(self, train: sp.csr_matrix) -> Baseline:
        return BASELINES[self.name](train, **self.settings)

    def test_rows_are_the_histories_of_training_users(self, train: sp.csr_matrix) -> None:
        baseline = self.fit(train)
        users = np.array([train.shape[0] - 1, 0, 3, 3])
        rows = np.asarray(baseline.score_rows(users))
        assert rows.shape == (4, train.shape[1])
        np.testing.assert_allclose(rows, np.asarray(baseline.score_histories(train[users])), atol=2e-5)

    def test_scores_are_finite_also_where_nothing_was_taken(self, train: sp.csr_matrix) -> None:
        new = sp.csr_matrix(np.vstack([np.zeros(train.shape[1]), np.ones(train.shape[1])]).astype(np.float32))
        for scores in (scores_of(self.fit(train), train), np.asarray(self.fit(train).score_histories(new))):
            assert scores.shape[1] == train.shape[1]
            assert np.isfinite(scores).all()

    def test_a_fit_is_deterministic_and_leaves_its_input_alone(self, train: sp.csr_matrix) -> None:
        before = train.copy()
        first = scores_of(self.fit(train), train)
        np.testing.assert_array_equal(first, scores_of(self.fit(train), train))
        assert (before != train).nnz == 0

    def test_chunks_change_nothing(self, train: sp.csr_matrix) -> None:
        baseline = self.fit(train)
        alone = [np.asarray(baseline.score_histories(train[[user]])) for user in range(train.shape[0])]
        np.testing.assert_allclose(np.vstack(alone), np.asarray(baseline.score_histories(train)), atol=2e-5)

    def test_it_says_what_it_weighs(self, train: sp.csr_matrix) -> None:
        assert 0 < self.fit(train).num_bytes <= 64 * (train.shape[0] + train.shape[1]) ** 2
