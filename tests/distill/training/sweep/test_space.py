from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import SettingError
from distill.training.sweep.plan import Choice, Range, grid_points, needs_teacher, parse_space, sweepable


def test_words_become_axes_with_the_type_of_their_setting() -> None:
    ranges = ["alpha=0:1", "distillation-weight=log:0.01:10", "dim=8:64", "learning_rate=log:1e-4:1e-2"]
    assert parse_space(ranges, ["order=filter-first,projector-first", "num_neighbors=3, 5"], "freqd") == (
        Range("alpha", 0.0, 1.0),
        Range("distillation_weight", 0.01, 10.0, log=True),
        Range("dim", 8, 64, integer=True),
        Range("learning_rate", 1e-4, 1e-2, log=True),
        Choice("order", ("filter-first", "projector-first")),
        Choice("num_neighbors", ("3", "5")),
    )


def test_a_part_of_a_composition_can_be_named() -> None:
    (axis,) = parse_space(["freqd.alpha=0:0.5"], [], "freqd+ce")
    assert axis == Range("freqd.alpha", 0.0, 0.5)
    assert {"alpha", "freqd.alpha", "ce.temperature"} <= set(sweepable("freqd+ce"))
    assert "freqd.alpha" not in sweepable("freqd")


@pytest.mark.parametrize(
    ("ranges", "choices", "message"),
    [
        (["beta=0:1"], [], "beta: 'freqd' has no such setting; it has dim, start, continue_from, epochs"),
        ([], ["seed=0,1"], "seed: 'freqd' has no such setting"),
        (["alpha"], [], "alpha: has no value; write NAME="),
        (["alpha=0"], [], "alpha: '0' is not LOW:HIGH or log:LOW:HIGH, each a number"),
        (["alpha=0:x"], [], "alpha: '0:x' is not LOW:HIGH"),
        (["dim=8:9.5"], [], "dim: '8:9.5' is not LOW:HIGH or log:LOW:HIGH, each a whole number"),
        (["alpha=1:0"], [], "alpha: 1 is not below 0"),
        (["alpha=0:inf"], [], "alpha: 0 is not below inf"),
        (["alpha=log:0:1"], [], "alpha: a logarithmic range starts above 0, not at 0"),
        (["order=0:1"], [], "order: is no number; vary it by --choice order=A,B"),
        ([], ["order=filter-first"], "order: 'filter-first' is no list of two or more different values"),
        ([], ["dim=8,8"], "dim: '8,8' is no list of two or more"),
        (["alpha=0:1"], ["alpha=0,1"], "alpha: is given twice"),
        ([], [], "range: nothing is varied"),
    ],
)
def test_what_is_no_space_is_refused_by_name(ranges: list[str], choices: list[str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_space(ranges, choices, "freqd")
    assert str(caught.value).startswith(message)


def test_an_unknown_name_is_answered_with_the_list() -> None:
    with pytest.raises(SettingError, match=r"it has dim, start, .*learning_rate.*, distillation_weight, .*alpha"):
        parse_space(["nonsense=0:1"], [], "freqd")


def test_a_bare_student_has_no_teacher_to_start_from() -> None:
    assert not needs_teacher("scratch")
    assert needs_teacher("freqd+ce")
    assert "start" not in sweepable("scratch")
    assert "learning_rate" in sweepable("scratch")


def test_grid_points_are_spread_on_the_axis_own_scale() -> None:
    assert grid_points(Range("alpha", 0.0, 1.0), 3) == (0.0, 0.5, 1.0)
    assert grid_points(Range("distillation_weight", 0.01, 10.0, log=True), 4) == (0.01, 0.1, 1.0, 10.0)
    assert grid_points(Range("dim", 1, 3, integer=True), 7) == (1, 2, 3)
    assert grid_points(Choice("dim", ("8", "16")), 99) == ("8", "16")


@given(st.floats(1e-6, 1e6), st.integers(1, 400))
def test_what_is_shown_is_what_is_trained(value: float, whole: int) -> None:
    shown = Range("alpha", 0, 1e7).shown(value)
    assert float(str(shown)) == shown == pytest.approx(value, rel=1e-3)
    assert Range("dim", 1, 500, integer=True).shown(float(whole)) == whole
