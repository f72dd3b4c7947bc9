"""How far today's lists are from yesterday's, on cases whose lists are written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.errors import RunError, SettingError
from distill.evaluation.drift import LEAST_OVERLAP, Drift, measure_drift
from distill.run import Run, open_run, write_ids, write_run
from tests.distill.toy import build_interactions, build_random

DATA = build_interactions((3, 6), [(0, 0), (1, 1), (2, 2)])


def as_run(path: Path, data: Interactions, users: np.ndarray, items: np.ndarray) -> Run:
    config = {"backbone": "bprmf", "method": "scratch", "data": {"name": "toy", "fingerprint": data.fingerprint}}
    write_ids(path, data.user_ids, data.item_ids)
    write_run(path, config, users.astype(np.float32), items.astype(np.float32), {})
    return open_run(path)


def scored(path: Path, data: Interactions, scores: list[list[float]]) -> Run:
    """A run whose scores are a matrix of users by items."""
    return as_run(path, data, np.array(scores), np.eye(data.num_items))


def test_a_run_shares_all_of_its_own_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = scored(tmp_path, DATA, rng.normal(size=(3, 6)).tolist())
    found = measure_drift(run, run, DATA, 3)
    assert (found.overlap, found.users, found.k) == (1.0, 3, 3)
    assert (found.users_lost, found.users_new, found.items_lost, found.items_new) == (0, 0, 0, 0)


def test_overlap_is_the_share_of_common_items_without_todays_training_items(tmp_path: Path) -> None:
    """User 0 has i0: before i1 i2, now i2 i3, one of two; user 1 has i1: i0 i2 both times; user 2: none of two."""
    before = scored(tmp_path / "a", DATA, [[9, 5, 4, 3, 2, 1], [5, 9, 4, 3, 2, 1], [5, 4, 9, 3, 2, 1]])
    now = scored(tmp_path / "b", DATA, [[9, 1, 5, 4, 2, 0], [4, 9, 5, 3, 2, 1], [1, 2, 9, 3, 4, 5]])
    found = measure_drift(before, now, DATA, 2)
    assert found.overlap == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.standard_error == 0


def test_users_and_items_are_matched_by_id_and_those_of_one_day_alone_stay_out(tmp_path: Path) -> None:
    scores = np.array([[9, 5, 4, 3, 2, 1], [5, 9, 4, 3, 2, 1], [5, 4, 9, 3, 2, 1]], dtype=float)
    before = scored(tmp_path / "a", DATA, scores.tolist())
    users, items = np.array(["u1", "u0", "new"]), np.array(["i5", "i4", "i3", "i2", "i1", "fresh", "i0"])
    now = build_interactions((3, 7), [(0, 4), (1, 6), (2, 5)])
    now = replace(now, user_ids=users, item_ids=items)
    columns = [5, 4, 3, 2, 1, -1, 0]
    turned = [[100.0 if column < 0 else scores[row, column] for column in columns] for row in (1, 0, 0)]
    found = measure_drift(before, scored(tmp_path / "b", now, turned), now, 2)
    assert found.overlap == 1
    assert (found.users_kept, found.items_kept) == (2, 6)
    assert found.users_lost == pytest.approx(1 / 3)
    assert found.users_new == pytest.approx(1 / 3)
    assert found.items_lost == 0
    assert found.items_new == pytest.approx(1 / 7)


def test_rows_in_another_order_are_a_catastrophe(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = build_random(rng, 200, 300, 8)
    users, items = rng.normal(size=(200, 8)), rng.normal(size=(300, 8))
    before = as_run(tmp_path / "a", data, users, items)
    near = as_run(tmp_path / "b", data, users + 0.05 * rng.normal(size=users.shape), items)
    broken = as_run(tmp_path / "c", data, users, items[rng.permutation(300)])
    assert not measure_drift(before, near, data).is_catastrophic
    far = measure_drift(before, broken, data)
    assert far.is_catastrophic
    assert far.k == 20
    assert far.overlap < 0.2 < LEAST_OVERLAP


def test_lists_are_a_tenth_of_a_small_catalogue_unless_their_length_is_given(tmp_path: Path) -> None:
    """Of 50 items random lists of 20 share two fifths, of 5 a tenth: a bound would find nothing broken."""
    rng = np.random.default_rng(4)
    data = build_random(rng, 100, 50, 6)
    before = as_run(tmp_path / "a", data, rng.normal(size=(100, 6)), rng.normal(size=(50, 6)))
    now = as_run(tmp_path / "b", data, rng.normal(size=(100, 6)), rng.normal(size=(50, 6)))
    assert (found := measure_drift(before, now, data)).k == 5
    assert found.is_catastrophic
    assert not measure_drift(before, now, data, 20).is_catastrophic


def test_of_many_users_some_are_drawn_and_the_error_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    data = build_random(rng, 200, 60, 8)
    users, items = rng.normal(size=(200, 8)), rng.normal(size=(60, 8))
    before = as_run(tmp_path / "a", data, users, items)
    now = as_run(tmp_path / "b", data, users + 0.3 * rng.normal(size=users.shape), items)
    whole, drawn = measure_drift(before, now, data, 5), measure_drift(before, now, data, 5, eval_users=50)
    assert drawn.users == 50
    assert 0 < drawn.standard_error < 0.1
    assert abs(drawn.overlap - whole.overlap) < 5 * drawn.standard_error
    assert "±" in str(drawn)
    assert Drift(**drawn.as_dict()).overlap == pytest.approx(drawn.overlap, abs=1e-6)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    run = scored(tmp_path / "a", DATA, np.ones((3, 6)).tolist())
    with pytest.raises(SettingError, match="k: 0 is below 1"):
        measure_drift(run, run, DATA, 0)
    with pytest.raises(RunError, match=r"data\.fingerprint is not that"):
        measure_drift(run, run, build_interactions((3, 6), [(0, 1)]))
    strangers = replace(DATA, user_ids=np.array(["x", "y", "z"]))
    with pytest.raises(SettingError, match="no users or no items in common"):
        measure_drift(run, scored(tmp_path / "b", strangers, np.ones((3, 6)).tolist()), strangers)
