from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse.linalg import svds

from distill.data.interactions import Interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.errors import SettingError


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthesize()


def recall_at_20(data: Interactions, scores: npt.NDArray[Any]) -> float:
    scores = np.where(data.train.toarray() > 0, -np.inf, scores)
    top = np.argpartition(-scores, 20, axis=1)[:, :20]
    relevant = data.test.toarray()
    hits, count = np.take_along_axis(relevant, top, axis=1).sum(1), relevant.sum(1)
    return float((hits[count > 0] / count[count > 0]).mean())


def low_rank_scores(data: Interactions, rank: int) -> npt.NDArray[Any]:
    left, values, right = svds(data.train.astype(np.float64), k=rank, rng=np.random.default_rng(0))
    scores: npt.NDArray[Any] = left * values @ right
    return scores


def test_shape_ids_titles_and_categories(data: Interactions) -> None:
    assert (data.num_users, data.num_items) == (2000, 1500)
    assert sorted(data.user_ids.tolist())[0] == "u0001"
    assert sorted(data.item_ids.tolist())[-1] == "i1500"
    assert data.item_titles is not None
    assert data.item_categories is not None
    assert len(set(data.item_titles)) == 1500
    assert all(len(title.split()) == 2 for title in data.item_titles)
    assert {len(categories) for categories in data.item_categories} == {1, 2}
    total = data.train.nnz + data.validation.nnz + data.test.nnz
    assert 35 < total / 2000 < 45
    assert data.train.nnz / total == pytest.approx(0.8, abs=0.02)


def test_the_seed_makes_it(data: Interactions) -> None:
    assert synthesize(SyntheticOptions()).fingerprint == data.fingerprint
    assert synthesize(SyntheticOptions(seed=1)).fingerprint != data.fingerprint


def test_it_takes_less_than_two_seconds() -> None:
    started = time.process_time()
    synthesize()
    assert time.process_time() - started < 2


def test_popularity_has_a_long_tail(data: Interactions) -> None:
    degree = np.sort(np.asarray(data.train.sum(axis=0)).ravel())[::-1]
    assert degree[0] > 10 * np.median(degree)


def test_tastes_beat_popularity_and_small_models_lose_something(data: Interactions) -> None:
    popularity = recall_at_20(data, np.asarray(data.train.sum(axis=0)).repeat(data.num_users, axis=0))
    small = recall_at_20(data, low_rank_scores(data, 16))
    large = recall_at_20(data, low_rank_scores(data, 64))
    assert small > 1.8 * popularity
    assert large > 1.5 * small


def test_many_items_still_have_titles_of_their_own() -> None:
    data = synthesize(SyntheticOptions(num_users=50, num_items=8000, mean_interactions=400))
    assert data.item_titles is not None
    assert len(set(data.item_titles)) == data.num_items
    assert any("Part 2" in title for title in data.item_titles)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SyntheticOptions(num_users=0), "--users 0"),
        (SyntheticOptions(num_items=3), "--items 3"),
        (SyntheticOptions(num_clusters=5000), "--clusters 5000: give 1 to 1500"),
        (SyntheticOptions(tastes_per_user=61), "tastes_per_user 61: give 1 to 60"),
        (SyntheticOptions(mean_interactions=1), "--interactions 1"),
    ],
)
def test_settings_out_of_range(options: SyntheticOptions, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        synthesize(options)
