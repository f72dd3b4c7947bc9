from __future__ import annotations

import pytest

from distill.errors import SettingError
from export.frontier.choice import Limits, Recommendation, Row, recommend
from tests.export.frontier.toy import build_baseline, build_row, build_teacher, build_untrained


def never(first: Row, second: Row) -> bool:
    return False


def within_two_points(first: Row, second: Row) -> bool:
    return abs(first.kept - second.kept) <= 0.021


TABLE = [
    build_teacher(p99_us=400.0),
    build_untrained("svd-d16", 0.80, 16),
    build_row("big", 0.99, 64, 200.0),
    build_row("middle", 0.98, 32, 100.0),
    build_row("small", 0.96, 16, 50.0),
    build_row("tiny", 0.90, 8, 40.0),
    build_baseline("ease", 1.10, 4000),
]


def chosen(found: Recommendation) -> str | None:
    return found.chosen.name if found.chosen else None


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(), "teacher-float32"),
        (Limits(max_bytes_per_item=64), "big"),
        (Limits(max_bytes_per_item=63), "middle"),
        (Limits(max_p99_ms=0.1), "middle"),
        (Limits(max_p99_ms=0.099), "small"),
        (Limits(max_bytes_per_item=15, min_kept=0.9), "tiny"),
        (Limits(max_bytes_per_item=15), None),
    ],
)
def test_without_ties_the_best_within_the_limits_is_taken(limits: Limits, name: str | None) -> None:
    assert chosen(recommend(TABLE, limits, never)) == name


def test_ties_go_to_the_smallest_within_the_limits() -> None:
    found = recommend(TABLE, Limits(), within_two_points)
    assert chosen(found) == "middle"
    assert found.best is not None
    assert found.best.name == "teacher-float32"
    assert [row.name for row in found.level] == ["teacher-float32", "big", "middle"]
    assert chosen(recommend(TABLE, Limits(min_kept=0.99), within_two_points)) == "big"


def test_a_tie_at_equal_bytes_goes_to_the_better_and_then_to_the_quicker() -> None:
    rows = [build_row("slow", 0.97, 16, 90.0), build_row("quick", 0.97, 16, 80.0), build_row("worse", 0.96, 16, 10.0)]
    assert chosen(recommend(rows, Limits(), within_two_points)) == "quick"


def test_neighbours_of_the_choice() -> None:
    found = recommend(TABLE, Limits(max_bytes_per_item=64), never)
    names = [row.name if row else None for row in (found.runner_up, found.next_cheaper, found.undistilled)]
    assert names == ["middle", "middle", "svd-d16"]
    last = recommend(TABLE, Limits(max_bytes_per_item=8, min_kept=0.5), never)
    assert (last.runner_up, last.next_cheaper, last.undistilled) == (None, None, None)


def test_what_no_bundle_can_hold_is_never_recommended() -> None:
    found = recommend([build_teacher(), build_baseline("ease", 1.10, 8)], Limits(max_bytes_per_item=100), never)
    assert found.chosen is None
    assert [each.row.name for each in found.relaxations] == ["teacher-float32"]


def test_where_nothing_fits_each_limit_that_alone_would_help_is_named_with_the_smallest_step_first() -> None:
    found = recommend(TABLE, Limits(max_bytes_per_item=15), never)
    assert [(each.values, each.row.name) for each in found.relaxations] == [
        ({"min_kept": 0.9}, "tiny"),
        ({"max_bytes_per_item": 16}, "small"),
    ]


def test_where_no_limit_alone_helps_the_nearest_candidate_says_which_must() -> None:
    limits = Limits(max_bytes_per_item=4, max_p99_ms=0.01, min_kept=0.95)
    (relaxation,) = recommend(TABLE, limits, never).relaxations
    assert relaxation.row.name == "tiny"
    assert relaxation.values == {"min_kept": 0.9, "max_bytes_per_item": 8, "max_p99_ms": 0.04}
    relaxed = Limits(
        **{name: relaxation.values.get(name) for name in ("max_bytes_per_item", "max_p99_ms")}, min_kept=0.9
    )
    assert chosen(recommend(TABLE, relaxed, never)) == "tiny"


@pytest.mark.parametrize("kept", [0.94996, 0.123449, 0.9])
def test_relaxed_values_admit_what_they_name(kept: float) -> None:
    row = build_row("only", kept, 77, 33.34)
    (step,) = recommend([row], Limits(50, 0.001, 0.95), never).relaxations
    relaxed = Limits(step.values["max_bytes_per_item"], step.values["max_p99_ms"], step.values["min_kept"])
    assert recommend([row], relaxed, never).chosen is row


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"max_bytes_per_item": 0}, "max_bytes_per_item: 0 is not above 0"),
        ({"max_p99_ms": -1.0}, "max_p99_ms: -1.0 is not above 0"),
        ({"min_kept": -0.1}, "min_kept: -0.1 is negative"),
        ({"max_bytes_per_item": float("nan")}, "max_bytes_per_item: nan is not above 0"),
        ({"max_p99_ms": float("nan")}, "max_p99_ms: nan is not above 0"),
        ({"min_kept": float("nan")}, "min_kept: nan is negative or not finite"),
    ],
)
def test_impossible_limits(limits: dict[str, float], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        Limits(**limits)
