from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import svds
from scipy.stats import chisquare

from distill.data import synthetic
from distill.data.interactions import Interactions
from distill.data.synthetic import Shelves, SyntheticOptions, draw_interactions, synthesize
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


def shape_of(options: SyntheticOptions) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Clusters and popularities, the most popular item first."""
    rank = np.arange(options.num_items, dtype=np.int64)
    popularity: npt.NDArray[np.float64] = np.arange(1.0, options.num_items + 1) ** -options.zipf_exponent
    return rank % options.num_clusters, popularity


def chances(shelves: Shelves, user: int, cluster: npt.NDArray[Any], popularity: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The module's formula, item by item."""
    weights: npt.NDArray[Any] = np.full(len(cluster), shelves.weights[user, -1])
    for taste, share in zip(shelves.tastes[user], shelves.weights[user], strict=False):
        weights[cluster == taste] += share
    weights *= popularity
    weights /= weights.sum()
    return weights


class CountingGenerator:
    """A generator that counts the numbers it gives."""

    def __init__(self, seed: int) -> None:
        self.given = 0
        self._rng = np.random.default_rng(seed)

    def __getattr__(self, name: str) -> Any:
        def draw(*args: Any, **kwargs: Any) -> Any:
            numbers = getattr(self._rng, name)(*args, **kwargs)
            self.given += np.size(numbers)
            return numbers

        return draw


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


def test_one_draw_follows_the_formula() -> None:
    options = SyntheticOptions(num_users=3, num_items=60, num_clusters=6, tastes_per_user=2, breadth=0.1)
    cluster, popularity = shape_of(options)
    rng = np.random.default_rng(0)
    shelves = Shelves(options, cluster, popularity, rng)
    for user in range(options.num_users):
        drawn = shelves.draw(np.full(50_000, user), rng)
        expected = chances(shelves, user, cluster, popularity) * len(drawn)
        assert chisquare(np.bincount(drawn, minlength=options.num_items), expected).pvalue > 0.001


@pytest.mark.parametrize("rounds", [0, 1, 64])
def test_what_is_taken_is_left_out_of_the_next_draw(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "MAX_ROUNDS", rounds)
    options = SyntheticOptions(num_users=3000, num_items=20, num_clusters=1, tastes_per_user=1, mean_interactions=5)
    cluster, popularity = shape_of(options)
    _, items = draw_interactions(options, cluster, popularity, np.random.default_rng(0))
    first, second = items.reshape(options.num_users, 5)[:, :2].T
    chance = popularity / popularity.sum()
    second_chance = chance * ((chance / (1 - chance)).sum() - chance / (1 - chance))
    for drawn, expected in ((first, chance), (second, second_chance)):
        assert chisquare(np.bincount(drawn, minlength=20), expected * options.num_users).pvalue > 0.001


def test_popularity_is_zipfs() -> None:
    options = SyntheticOptions(num_users=20_000, num_items=2000, num_clusters=10, mean_interactions=8)
    _, items = draw_interactions(options, *shape_of(options), np.random.default_rng(0))
    degree = np.bincount(items, minlength=options.num_items)[20:400]
    slope = np.polyfit(np.log(np.arange(21, 401)), np.log(degree), 1)[0]
    assert slope == pytest.approx(-options.zipf_exponent, abs=0.05)


def test_tastes_take_their_share() -> None:
    options = SyntheticOptions(num_users=5000, num_items=20_000, num_clusters=50, zipf_exponent=0.2)
    cluster, popularity = shape_of(options)
    rng = np.random.default_rng(0)
    shelves = Shelves(options, cluster, popularity, rng)
    users = np.repeat(np.arange(options.num_users), 6)
    items = shelves.draw(users, rng)
    share = (cluster[items][:, None] == shelves.tastes[users]).any(axis=1).mean()
    outside = options.breadth * (options.num_clusters - options.tastes_per_user)
    assert share == pytest.approx(1 - outside / (1 + options.breadth * options.num_clusters), abs=0.01)


@given(
    st.builds(
        SyntheticOptions,
        num_users=st.integers(1, 40),
        num_items=st.integers(20, 90),
        num_clusters=st.integers(5, 20),
        tastes_per_user=st.integers(1, 5),
        mean_interactions=st.floats(5, 60),
        zipf_exponent=st.floats(0, 6),
        breadth=st.floats(1e-6, 1),
        seed=st.integers(0, 1000),
    )
)
def test_nobody_takes_an_item_twice_nor_too_many(options: SyntheticOptions) -> None:
    users, items = draw_interactions(options, *shape_of(options), np.random.default_rng(options.seed))
    assert len(set(zip(users.tolist(), items.tolist(), strict=True))) == len(users)
    assert ((items >= 0) & (items < options.num_items)).all()
    counts = np.bincount(users, minlength=options.num_users)
    assert counts.min() >= 5
    assert counts.max() <= max(5, options.num_items // 4)


def test_tastes_are_different_and_uniform() -> None:
    options = SyntheticOptions(num_users=20_000, num_items=20, num_clusters=6, tastes_per_user=4)
    tastes = Shelves(options, *shape_of(options), np.random.default_rng(0)).tastes
    assert all(len(set(row)) == 4 for row in tastes.tolist())
    sets = np.unique((1 << tastes).sum(axis=1), return_counts=True)[1]
    assert len(sets) == 15
    assert chisquare(sets).pvalue > 0.001


@pytest.mark.parametrize("num_items", [3000, 60_000])
def test_the_cost_goes_by_the_interactions(num_items: int) -> None:
    options = SyntheticOptions(num_users=1000, num_items=num_items)
    rng: Any = CountingGenerator(0)
    users, _ = draw_interactions(options, *shape_of(options), rng)
    assert rng.given < 2 * len(users) + 10 * options.num_users


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SyntheticOptions(num_users=0), "--users 0"),
        (SyntheticOptions(num_items=3), "--items 3"),
        (SyntheticOptions(num_clusters=5000), "--clusters 5000: give 1 to 1500"),
        (SyntheticOptions(tastes_per_user=61), "tastes_per_user 61: give 1 to 60"),
        (SyntheticOptions(mean_interactions=1), "--interactions 1"),
        (SyntheticOptions(breadth=0), "--breadth 0"),
    ],
)
def test_settings_out_of_range(options: SyntheticOptions, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        synthesize(options)
