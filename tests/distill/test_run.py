"""What a run answers without a server: a toy whose scores and cosines can be read off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.errors import RunError, SettingError
from distill.run import (
    Run,
    ScoredItem,
    features_fingerprint,
    open_run,
    open_trajectory,
    write_run,
    write_trajectory,
)
from tests.distill.toy import build_interactions

USERS = np.array([[1, 0], [0, 2], [1, 1]], dtype=np.float32)
ITEMS = np.array([[4, 0], [3, 3], [3, 0], [0, 1], [0, 0], [-5, 0]], dtype=np.float32)


@pytest.fixture
def data() -> Interactions:
    return build_interactions((3, 6), train=[(0, 0), (1, 1)], validation=[(0, 5)], test=[(0, 1), (2, 2)])


@pytest.fixture
def run(data: Interactions, tmp_path: Path) -> Run:
    config = {"data": {"name": data.name, "fingerprint": data.fingerprint}}
    write_run(tmp_path / "run", config, USERS, ITEMS, {})
    return open_run(tmp_path / "run", data)


def test_a_user_is_answered_with_the_best_items_it_does_not_have(run: Run) -> None:
    assert run.recommend("u0", k=2) == [ScoredItem("i1", 3.0), ScoredItem("i2", 3.0)], "equal scores by rising row"
    assert [item.item_id for item in run.recommend("u0", k=2, seen="all")] == ["i2", "i3"], "i1 is its test item"
    assert [item.item_id for item in run.recommend("u1", k=1)] == ["i3"]
    assert [(item.item_id, item.score) for item in run.recommend("u2", k=3)] == [("i1", 6.0), ("i0", 4.0), ("i2", 3.0)]


def test_an_answer_is_short_where_nothing_is_left(run: Run) -> None:
    assert [item.item_id for item in run.recommend("u0")] == ["i1", "i2", "i3", "i4"], "i0 and i5 it has"
    assert len(run.recommend("u2")) == 6
    assert len(run.similar_items("i0")) == 5


def test_similar_items_are_those_of_the_same_direction(run: Run) -> None:
    found = run.similar_items("i0", k=5)
    assert [item.item_id for item in found] == ["i2", "i1", "i3", "i4", "i5"]
    assert [item.score for item in found] == pytest.approx([1.0, 0.5**0.5, 0.0, 0.0, -1.0])
    assert [item.score for item in run.similar_items("i4")] == [0.0] * 5, "a vector of zeros points nowhere"


def test_titles_come_with_the_items_where_the_data_has_them(run: Run, data: Interactions) -> None:
    titled = replace(run, data=replace(data, item_titles=tuple("abcdef")))
    assert [item.title for item in titled.recommend("u1", k=2)] == ["d", "a"]
    assert [item.title for item in run.recommend("u1", k=2)] == [None, None]


def test_an_unknown_id_is_named(run: Run) -> None:
    with pytest.raises(RunError, match="run: no user 'nobody' in data set 'toy'"):
        run.recommend("nobody")
    with pytest.raises(RunError, match="run: no item 'u0' in data set 'toy'"):
        run.similar_items("u0")


def test_a_list_has_at_least_one_item(run: Run) -> None:
    with pytest.raises(SettingError, match="k: 0 is below 1"):
        run.recommend("u0", k=0)
    with pytest.raises(SettingError, match="k: -1 is below 1"):
        run.similar_items("i0", k=-1)


def test_a_run_without_its_data_knows_no_ids(run: Run) -> None:
    bare = open_run(run.path)
    assert bare.data is None
    with pytest.raises(RunError, match="knows no ids; open it with its data: open_run"):
        bare.recommend("u0")
    with pytest.raises(RunError, match="knows no ids"):
        bare.similar_items("i0")


def test_a_run_is_opened_with_its_own_data_only(run: Run) -> None:
    other = build_interactions((3, 6), train=[(0, 1)])
    with pytest.raises(RunError, match=r"config.json: data.fingerprint is not that of data set 'toy'"):
        open_run(run.path, other)


def test_runs_of_the_same_embeddings_have_one_fingerprint(run: Run) -> None:
    assert features_fingerprint(run) == features_fingerprint(replace(run, path=Path("elsewhere")))
    assert features_fingerprint(run) != features_fingerprint(replace(run, item_embeddings=ITEMS[::-1].copy()))


def test_a_user_without_a_direction_is_answered_by_popularity(data: Interactions, run: Run) -> None:
    silent = replace(run, user_embeddings=np.zeros_like(USERS))
    assert silent.recommend("u2", k=3) == [ScoredItem("i0", 1.0), ScoredItem("i1", 1.0), ScoredItem("i2", 0.0)]


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        (USERS * np.float32(np.nan), ITEMS, r"embeddings.safetensors: user_embeddings: 6 of 6 numbers are not finite"),
        (USERS, ITEMS * np.float32(1e25), "item_embeddings: row 5 has length 5e[+]25, and scores"),
        (USERS[:, :0], ITEMS[:, :0], "user_embeddings: dimension 0"),
    ],
)
def test_a_run_that_cannot_be_scored_with_is_refused(
    run: Run, users: np.ndarray, items: np.ndarray, message: str
) -> None:
    write_run(run.path, run.config, users, items, {})
    with pytest.raises(RunError, match=message):
        open_run(run.path)


def test_a_trajectory_beyond_its_half_precision_is_refused(run: Run) -> None:
    with np.errstate(over="ignore"):
        halves = (USERS * 1e5).astype(np.float16), ITEMS.astype(np.float16)
    write_trajectory(run.path, {5: halves})
    with pytest.raises(RunError, match=r"5.safetensors: user_embeddings: 4 of 6 numbers are not finite"):
        open_trajectory(run.path)
