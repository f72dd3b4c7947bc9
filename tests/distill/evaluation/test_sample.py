from __future__ import annotations

import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation import sample
from distill.evaluation.protocol import Protocol, describe_sample, evaluate, report_splits
from distill.evaluation.sample import LEAST_USERS, MOST_SCORES, draw_users
from tests.distill.toy import build_random, random_embeddings


@pytest.fixture
def data(rng: np.random.Generator) -> Interactions:
    return build_random(rng)


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "MOST_SCORES", 100)
    monkeypatch.setattr(sample, "LEAST_USERS", 6)


def test_all_users_are_ranked_up_to_a_bound_and_then_as_many_as_keep_to_it() -> None:
    items = 10_000
    most = MOST_SCORES // items
    assert not draw_users(np.ones(most, int), items).is_drawn
    beyond = draw_users(np.ones(2 * most, int), items)
    assert (beyond.is_drawn, len(beyond.users), beyond.num_relevant) == (True, most, 2 * most)
    assert len(draw_users(np.ones(2 * LEAST_USERS, int), 10 * MOST_SCORES // LEAST_USERS).users) == LEAST_USERS
    assert not draw_users(np.ones(2 * most, int), items, eval_users=2 * most).is_drawn


def test_a_smaller_sample_is_part_of_a_larger_one_and_of_users_with_relevant_items(rng: np.random.Generator) -> None:
    relevant = rng.integers(0, 2, size=5000)
    small, large = (draw_users(relevant, 9, number) for number in (100, 1000))
    assert set(small.users) <= set(large.users) <= set(np.flatnonzero(relevant))
    assert (len(set(small.users)), len(set(large.users))) == (100, 1000)
    assert (np.diff(small.users) > 0).all()
    assert abs(large.users.mean() - 2500) < 150, "drawn from all over, not the first ones"
    np.testing.assert_array_equal(draw_users(relevant, 9, 100).users, small.users)
    other = draw_users(1 - relevant + rng.integers(0, 2, size=5000), 9, 1000)
    assert len(np.intersect1d(other.users, large.users)) > 300, "another split, the same people where it can"


def test_one_user_is_no_sample() -> None:
    with pytest.raises(SettingError, match="eval_users: 1 is below 2"):
        draw_users(np.ones(5, int), 9, 1)


def test_the_standard_error_is_the_spread_of_sampled_means(rng: np.random.Generator) -> None:
    values = rng.exponential(size=400)
    drawn = [rng.choice(400, size=100, replace=False) for _ in range(2000)]
    spread = np.std([values[rows].mean() for rows in drawn])
    said = [sample.Sample(rows, 400).standard_error(values[rows]) for rows in drawn]
    assert np.mean(said) == pytest.approx(spread, rel=0.05)
    assert sample.Sample(np.arange(400), 400).standard_error(values) == 0


def test_a_sampled_report_is_that_of_its_users(data: Interactions, rng: np.random.Generator) -> None:
    embeddings = random_embeddings(data, rng)
    whole = evaluate(*embeddings, data)
    assert len(whole.users) == 20
    drawn = evaluate(*embeddings, data, Protocol(eval_users=8))
    places = np.searchsorted(whole.users, drawn.users)
    for name, values in drawn.per_user.items():
        np.testing.assert_array_equal(values, whole.per_user[name][places])
        assert drawn.metrics[name] == pytest.approx(values.mean())
    assert drawn.num_users == 8
    report = drawn.as_dict()
    assert report["convention"] == (
        "full ranking, test items relevant, train items masked, mean over 8 of 20 users with relevant items, "
        "drawn with seed 0"
    )
    expected = np.std(drawn.per_user["Recall@20"], ddof=1) / np.sqrt(8) * np.sqrt(12 / 20)
    assert report["standard_error"]["Recall@20"] == pytest.approx(expected, abs=1e-6)
    assert "Coverage@20" not in report["standard_error"]


def test_the_mean_over_all_users_is_scaled_from_the_sample(data: Interactions, rng: np.random.Generator) -> None:
    embeddings = random_embeddings(data, rng)
    drawn = evaluate(*embeddings, data, Protocol(eval_users=8))
    direct = evaluate(*embeddings, data, Protocol(eval_users=8, average="all"))
    derived = drawn.over_all_users(data.num_users)
    share = 20 / data.num_users
    for report in (direct, derived):
        assert report.num_users == data.num_users
        for name in drawn.per_user:
            assert report.metrics[name] == pytest.approx(drawn.metrics[name] * share)
            assert report.standard_errors[name] == pytest.approx(drawn.standard_errors[name] * share)
        assert "mean over all users, estimated from 8 of 20 users with relevant items" in report.convention


def test_a_sample_of_everybody_is_the_whole_evaluation(data: Interactions, rng: np.random.Generator) -> None:
    embeddings = random_embeddings(data, rng)
    for average in ("with-relevant", "all"):
        whole = evaluate(*embeddings, data, Protocol(average=average)).as_dict()
        asked = Protocol(average=average, eval_users=20)
        assert evaluate(*embeddings, data, asked).as_dict() == whole
        assert "standard_error" not in whole


@pytest.mark.usefixtures("small_bounds")
def test_much_data_is_sampled_without_being_asked(data: Interactions, rng: np.random.Generator) -> None:
    embeddings = random_embeddings(data, rng)
    reports = report_splits(lambda protocol: evaluate(*embeddings, data, protocol), data)
    assert {name: report["num_users"] for name, report in reports.items()} == {
        "validation": 6,
        "validation_all_users": data.num_users,
        "test": 6,
        "test_all_users": data.num_users,
    }
    assert describe_sample(data) == (
        "quality is measured on 6 of 20 users with relevant items, drawn with seed 0; --eval-users N for other numbers"
    )
    assert describe_sample(data, 100) is None
