"""Rows stand for what the plan says now, or for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from results.cells import Cell, Row, name_of
from results.plan import Plan
from results.standing import standing_cells
from tests.results.toy import row, write_plan

TAUGHT = {
    "method": "freqd+ce", "backbone": "bprmf", "dim": 4, "start": "svd", "ce.num_top": 9, "weight_decay": 1e-4,
    "epochs": 4, "patience": 4, "eval_every": 2,
}  # fmt: skip
"""What the toy plan says of the second trial of "best"; its learning rate is the method's own."""


def taught(plan: Plan, settings: dict[str, Any] | None = None, **key: Any) -> Row:
    key = Cell(plan.studies[0], "best", 4, 1, 0).key | key
    return {**row(0.3, 0.2, dim=4), **key, "settings": {**TAUGHT, **(settings or {})}, "teacher": "abc"}


def is_standing(plan: Plan, values: Row) -> bool:
    standing, stale = standing_cells(plan, {name_of(values): values})
    assert [*standing, *stale] == [name_of(values)]
    return bool(standing)


@pytest.mark.parametrize(
    "settings",
    [{}, {"co_teachers": "none"}, {"freqd.variant": "bipartite"}, {"max_seconds": 100.0}],
    ids=["as planned", "said though default", "default", "a limit that was not reached"],
)
def test_what_the_plan_says_stands_however_much_of_it_is_said(tmp_path: Path, settings: dict[str, Any]) -> None:
    plan = write_plan(tmp_path)
    assert is_standing(plan, taught(plan, settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"ce.num_top": 5}, {"method": "fd+ce"}, {"backbone": "lpmf"}, {"dim": 5}, {"start": "random"},
        {"co_teachers": "auto"}, {"patience": 5}, {"freqd.alpha": 0.4}, {"max_seconds": 8.0},
        {"ce.forgotten": 1}, {"epochs": 5},
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_are_stale(tmp_path: Path, settings: dict[str, Any]) -> None:
    plan = write_plan(tmp_path)
    assert not is_standing(plan, taught(plan, settings))


@pytest.mark.parametrize(
    "key", [{"study": "toy/simplex"}, {"contestant": "worst"}, {"dim": 3}, {"trial": 2}, {"seed": 5}], ids=str
)
def test_what_the_plan_has_no_more_is_stale(tmp_path: Path, key: dict[str, Any]) -> None:
    plan = write_plan(tmp_path)
    assert not is_standing(plan, taught(plan, **key))


def test_who_taught_must_be_who_is_to_teach(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    assert not is_standing(plan, {**taught(plan), "teacher": None})


def test_a_teacher_and_an_untrained_model_stand_too(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    study = plan.studies[0]
    teacher = {**row(0.5, 0.4), **Cell(study, "teacher").key}
    settings = {"method": "scratch", "backbone": "bprmf", "dim": 12, "learning_rate": 0.01, "epochs": 6, "patience": 6}
    assert is_standing(plan, {**teacher, "settings": settings})
    assert not is_standing(plan, {**teacher, "settings": {**settings, "dim": 13}})
    for name, dim, stands in (("svd", 3, True), ("popularity", 4, True), ("popularity", 3, False), ("ease", 4, False)):
        assert is_standing(plan, {**row(0.1, 0.1), **Cell(study, name, dim).key}) == stands
