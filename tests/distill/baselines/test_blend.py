"""A blend: standardised, weighed, and chosen where it is better and not where it is noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import torch

import distill.baselines.blend
from distill.baselines.blend import Blend, choose_blend, standardise
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.protocol import Protocol, evaluate_scores
from distill.evaluation.ranking import ScoreRows
from tests.distill.toy import build_random

VALIDATION = Protocol(split="validation", cutoffs=(20,))


def scorer(scores: npt.NDArray[np.float32]) -> ScoreRows:
    return lambda users: scores[users]


@pytest.fixture
def data(rng: np.random.Generator) -> Interactions:
    return build_random(rng, num_users=150, num_items=80)


def knowing(data: Interactions, rng: np.random.Generator, share: float) -> ScoreRows:
    """Noise that knows this share of the relevant items."""
    relevant = data.validation.toarray() * (rng.random(data.validation.shape) < share)
    return scorer((rng.random(relevant.shape) + relevant).astype(np.float32))


def test_rows_are_standardised_whatever_their_scale_and_the_scorer_keeps_its_own(rng: np.random.Generator) -> None:
    scores = (rng.normal(size=(4, 30)) * [[1], [1e-3], [1e6], [0]] + 5).astype(np.float32)
    before = scores.copy()
    found = standardise(scorer(scores), np.arange(4)).numpy()
    wanted = (before - before.mean(1, keepdims=True)) / np.maximum(before.std(1, keepdims=True), 1e-30)
    np.testing.assert_allclose(found[:3], wanted[:3], atol=2e-3)
    np.testing.assert_array_equal(found[3], 0)
    np.testing.assert_array_equal(scores, before)


def test_a_blend_is_the_weighted_sum(rng: np.random.Generator) -> None:
    members = {name: scorer(rng.normal(size=(6, 9)).astype(np.float32)) for name in "ab"}
    users = np.array([4, 1])
    wanted = 2 * standardise(members["a"], users) + 0.5 * standardise(members["b"], users)
    torch.testing.assert_close(Blend(members, {"a": 2.0, "b": 0.5}).score_rows(users), wanted)
    with pytest.raises(SettingError, match="no scorer"):
        Blend(members, {}).score_rows(users)


def test_what_knows_other_things_is_taken_and_noise_is_not(data: Interactions, rng: np.random.Generator) -> None:
    families = {
        "first": {"first": knowing(data, rng, 0.5)},
        "other": {"weak": knowing(data, rng, 0.05), "strong": knowing(data, rng, 0.6)},
        "noise": {"noise": knowing(data, rng, 0.0)},
    }
    choice = choose_blend(families, data, first="first")
    assert list(choice.weights) == ["first", "strong"]
    assert choice.weights["first"] == 1.0
    assert max(choice.alone["noise"], choice.alone["weak"]) < choice.alone["strong"] < choice.value
    alone = choose_blend(families, data)
    assert next(iter(alone.weights)) == "strong", "without a first one the best begins"


def test_the_pool_says_what_ranking_the_catalogue_says(data: Interactions, rng: np.random.Generator) -> None:
    members = {"a": knowing(data, rng, 0.4), "b": knowing(data, rng, 0.4)}
    choice = choose_blend({name: {name: rows} for name, rows in members.items()}, data, first="a")
    found = evaluate_scores(Blend(members, choice.weights).score_rows, data, VALIDATION)
    assert choice.value == pytest.approx(found.metrics["Recall@20"])
    for name, rows in members.items():
        assert choice.alone[name] == pytest.approx(evaluate_scores(rows, data, VALIDATION).metrics["Recall@20"])
    assert choice.num_users == found.num_users


def test_given_weights_are_kept_and_the_best_member_of_the_family_is_found(
    data: Interactions, rng: np.random.Generator
) -> None:
    noise = scorer(rng.random(data.train.shape).astype(np.float32))
    families = {"a": {"poor": noise, "good": knowing(data, rng, 0.5)}, "b": {"b": noise}}
    assert choose_blend(families, data, given={"a": 0.3, "b": 0.7}).weights == {"good": 0.3, "b": 0.7}


def test_the_search_looks_at_no_more_users_than_it_may(
    data: Interactions, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill.baselines.blend, "SEARCH_USERS", 40)
    asked: list[int] = []

    def rows(users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        asked.extend(users)
        return np.zeros((len(users), data.num_items), dtype=np.float32)

    choice = choose_blend({"a": {"a": rows}}, data)
    assert choice.num_users == len(set(asked)) == 40
    assert set(asked) <= set(np.flatnonzero(np.diff(data.validation.indptr)))


def test_nothing_to_choose_from_or_on_is_refused(data: Interactions, rng: np.random.Generator) -> None:
    with pytest.raises(SettingError, match="no scorer"):
        choose_blend({}, data)
    blind = replace(data, validation=sp.csr_matrix(data.train.shape, dtype=np.float32))
    with pytest.raises(SettingError, match="no validation interactions"):
        choose_blend({"a": {"a": knowing(data, rng, 0.5)}}, blind)
