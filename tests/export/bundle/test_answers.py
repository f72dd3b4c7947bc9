"""What a bundle answers without a server, on toy bundles of known answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import BundleError, ScoredItem, open_bundle
from export.bundle import UnknownId
from serve.answers.types import Query, Recommendation, SimilarQuery
from serve.live.loader import load_model
from tests.export.toy import toy_contents, write_toy
from tests.serve.repositories import publish


def test_a_user_is_recommended_what_scores_best_without_what_it_has(toy: Path) -> None:
    bundle = open_bundle(toy)
    assert bundle.recommend("ann", 2) == [ScoredItem("i0", 1.0, "Zero"), ScoredItem("i2", 0.0, "Two — deux")]
    # Equal scores come by rising row; bob has i2.
    assert [item.item_id for item in bundle.recommend("bob")] == ["i1", "i0", "i3"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_similar_items_are_those_of_the_same_direction_whatever_their_length(tmp_path: Path, dtype: str) -> None:
    items = np.array([[2, 0, 0, 0], [0, 9, 0, 0], [6, 8, 0, 0], [0, 0, 0, 0]]).astype(dtype)
    write_toy(tmp_path / "1", replace(toy_contents(dtype), item_embeddings=items, item_titles=None))
    bundle = open_bundle(tmp_path / "1")
    found = bundle.similar_items("i0", 2)
    assert [(item.item_id, item.title) for item in found] == [("i2", None), ("i1", None)]
    assert [item.score for item in found] == pytest.approx([0.6, 0.0])
    assert [item.item_id for item in bundle.similar_items("i0", 99)] == ["i2", "i1", "i3"], "itself is left out"
    assert [item.score for item in bundle.similar_items("i3")] == [0.0, 0.0, 0.0], "nothing is near a zero vector"


def test_who_has_everything_is_recommended_nothing(tmp_path: Path) -> None:
    contents = replace(toy_contents(), seen_indptr=np.array([0, 4, 4, 4]), seen_indices=np.arange(4))
    write_toy(tmp_path / "1", contents)
    bundle = open_bundle(tmp_path / "1")
    assert bundle.recommend("ann") == []
    assert len(bundle.recommend("bob")) == 4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 60))
def test_any_bundle_answers_as_sorting_everything_does(
    tmp_path_factory: pytest.TempPathFactory, seed: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    items, users = rng.integers(-2, 3, (50, 4)).astype(np.float32), rng.integers(-2, 3, (3, 4)).astype(np.float32)
    had = np.sort(rng.choice(50, 9, replace=False))
    target = tmp_path_factory.mktemp("any") / "1"
    contents = replace(
        toy_contents(), user_embeddings=users, item_embeddings=items, item_ids=[f"i{row}" for row in range(50)],
        seen_indptr=np.array([0, 9, 9, 9]), seen_indices=had, popularity=np.arange(50), item_titles=None,
        item_categories=None,
    )  # fmt: skip
    write_toy(target, contents)
    scores = items @ users[0]
    expected = sorted(set(range(50)) - set(had.tolist()), key=lambda row: (-scores[row], row))[:k]
    found = open_bundle(target).recommend("ann", k)
    assert [(item.item_id, item.score) for item in found] == [(f"i{row}", float(scores[row])) for row in expected]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_answers_as_a_server_of_the_same_bundle_does(tmp_path: Path, dtype: str) -> None:
    path = publish(tmp_path, factory="Flat", dtype=dtype)
    bundle, recommender = open_bundle(path), load_model("student", path).recommender
    for user, item, k in (("u0", "i0", 1), ("u7", "i33", 10), ("u59", "i399", 400)):
        asked = Query(user, k=k, exact=True, include_titles=True)
        (served,) = recommender.recommend([asked]).outcomes
        (similar,) = recommender.similar_items(SimilarQuery(item, k=k, include_titles=True)).outcomes
        for outcome, found in ((served, bundle.recommend(user, k)), (similar, bundle.similar_items(item, k))):
            assert isinstance(outcome, Recommendation)
            assert [each.item_id for each in found] == list(outcome.item_ids)
            assert [each.title for each in found] == list(outcome.titles)
            np.testing.assert_allclose([each.score for each in found], outcome.scores, rtol=1e-6)


def test_an_unknown_id_is_named(toy: Path) -> None:
    bundle = open_bundle(toy)
    with pytest.raises(UnknownId, match="no user 'nobody' among 3") as caught:
        bundle.recommend("nobody")
    assert isinstance(caught.value, BundleError)
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownId, match="no item 'ann' among 4"):
        bundle.similar_items("ann")


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_has_an_item_at_least(toy: Path, k: int) -> None:
    bundle = open_bundle(toy)
    with pytest.raises(ValueError, match="k: "):
        bundle.recommend("ann", k)
    with pytest.raises(ValueError, match="k: "):
        bundle.similar_items("i0", k)
