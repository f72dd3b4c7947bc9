"""Cutting a set into days: what is there on which day, and who moved."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.data.raw_table import RawTable
from distill.errors import SettingError
from results.days import FIRST_USERS, cut_days, draw_times, moved_users

ROWS = 400


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ML-100K's format: 40 users come one after the other and rate ten items each, every fifth time below 4."""
    folder = tmp_path_factory.mktemp("source") / "ml-100k"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(40):
        for place, item in enumerate(rng.permutation(30)[:10]):
            lines.append(f"u{user}\ti{item}\t{3 if place % 5 == 4 else 4}\t{880000000 + 1000 * user + place}")
    head, rows = lines[0], rng.permutation(lines[1:]).tolist()
    (folder / "ml-100k.inter").write_text("\n".join([head, *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def days(source: Path) -> list[Interactions]:
    return list(cut_days("ml-100k", source, 4))


def test_the_base_holds_half_and_each_day_brings_as_much(days: list[Interactions]) -> None:
    sizes = [sum(day.counts[name] for name in ("train", "validation", "test")) for day in days]
    assert sizes == [160, 200, 240, 280, 320]


def test_what_was_trained_on_yesterday_is_held_out_on_no_later_day(days: list[Interactions]) -> None:
    for before, now in pairwise(days):
        trained = pairs(before, "train")
        assert trained <= pairs(now, "train")
        assert not trained & (pairs(now, "validation") | pairs(now, "test"))


def test_who_moved_is_who_came(days: list[Interactions]) -> None:
    moved = moved_users(days[0], days[1])
    new = ~np.isin(days[1].user_ids, days[0].user_ids)
    np.testing.assert_array_equal(moved, new)
    assert new.sum() == 5


def test_drawn_times_begin_when_user_and_item_came() -> None:
    rng = np.random.default_rng(1)
    users, items = rng.integers(0, 50, ROWS), rng.integers(0, 20, ROWS)
    user_ids, item_ids = (np.array([str(row) for row in range(size)]) for size in (50, 20))
    table = draw_times(RawTable(user_ids, item_ids, users, items), np.random.default_rng(2))
    times = np.asarray(table.timestamps)
    assert times.min() >= 0
    assert times.max() <= 1e9
    came = np.random.default_rng(2)
    later = np.where(came.random(50) < FIRST_USERS, 0, came.random(50))
    assert (times >= (later[users] * 1e9).astype(np.int64)).all()
    assert (later > 0).any()


def test_another_set_is_refused(source: Path) -> None:
    with pytest.raises(SettingError, match="'citeulike-t' is not cut into days; give one of ml-100k, ml-1m"):
        next(cut_days("citeulike-t", source))


def pairs(data: Interactions, split: str) -> set[tuple[str, str]]:
    matrix = getattr(data, split).tocoo()
    return set(zip(data.user_ids[matrix.row].tolist(), data.item_ids[matrix.col].tolist(), strict=True))
