from __future__ import annotations

import pytest

from distill.data.interactions import Interactions
from export.frontier import large_data
from export.frontier.large_data import LARGE_MAX_SECONDS, suit
from export.frontier.plan import Plan

NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_data, "LARGE_PAIRS", 100)


def test_small_data_is_left_alone(data: Interactions) -> None:
    assert suit(Plan(), NOTHING, data) == (Plan(), [])


@pytest.mark.usefixtures("large")
def test_what_scores_every_pair_is_left_out_of_large_data_and_said(data: Interactions) -> None:
    plan, notes = suit(Plan(), NOTHING, data)
    assert plan.methods == ("scratch", "fd", "freqd")
    assert plan.training == {"max_seconds": LARGE_MAX_SECONDS}
    assert len(notes) == 2
    assert notes[0].startswith("ce, freqd+ce, ce+rcekd: left out, since an epoch scores 1.1e+04 pairs")
    assert "--max-seconds or --epochs" in notes[1]


@pytest.mark.usefixtures("large")
def test_what_is_asked_for_is_done(data: Interactions) -> None:
    plan = Plan(methods=("ce",), training={"epochs": 3, "max_seconds": None})
    assert suit(plan, {"methods", "epochs"}, data) == (plan, [])
    assert suit(Plan(methods=()), {"methods"}, data) == (Plan(methods=()), [])
