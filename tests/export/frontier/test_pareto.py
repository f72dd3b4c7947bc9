from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from export.build import pareto
from export.frontier.candidates import Objectives


def dominates(first: Objectives, second: Objectives) -> bool:
    """Whether `first` is nowhere worse than `second` and somewhere better."""
    pairs = list(zip(first.costs, second.costs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def find_pareto(points: Sequence[Objectives]) -> npt.NDArray[np.bool_]:
    return pareto.find_pareto([point.costs for point in points])


FEW = st.builds(
    Objectives,
    kept=st.floats(0, 1.2).map(lambda value: round(value, 2)),
    bytes_per_item=st.integers(1, 6).map(lambda power: 2**power),
    microseconds=st.floats(1, 1000),
)


@given(st.lists(FEW, min_size=1, max_size=25))
def test_no_member_is_beaten_and_everything_else_is_beaten_by_a_member(points: list[Objectives]) -> None:
    members = [point for point, is_member in zip(points, find_pareto(points), strict=True) if is_member]
    assert members
    for point, is_member in zip(points, find_pareto(points), strict=True):
        assert any(dominates(other, point) for other in members) == (not is_member)
        assert any(dominates(other, point) for other in points) == (not is_member)


@given(FEW, FEW, FEW)
def test_dominance_is_a_strict_order(a: Objectives, b: Objectives, c: Objectives) -> None:
    assert not dominates(a, a)
    assert not (dominates(a, b) and dominates(b, a))
    assert dominates(a, c) or not (dominates(a, b) and dominates(b, c))


def test_each_objective_alone_earns_a_place() -> None:
    base = Objectives(0.9, 64, 100.0)
    for better in (Objectives(0.95, 64, 100.0), Objectives(0.9, 32, 100.0), Objectives(0.9, 64, 50.0)):
        assert dominates(better, base)
        assert find_pareto([base, better]).tolist() == [False, True]


def test_trade_offs_stand_side_by_side() -> None:
    points = [Objectives(0.9, 64, 100.0), Objectives(0.95, 128, 100.0), Objectives(0.9, 200, 20.0)]
    assert find_pareto(points).all()


def test_a_difference_too_small_to_be_told_earns_nothing() -> None:
    slim, fat = Objectives(0.9000, 32, 100.0), Objectives(0.9004, 64, 99.0)
    assert find_pareto([slim, fat]).tolist() == [True, False]
    assert find_pareto([slim, slim]).all(), "equals are marked together"
