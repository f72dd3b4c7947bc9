from __future__ import annotations

import pytest

import distill.methods.candidates
from distill.data.interactions import Interactions
from export.frontier.large_data import LARGE_MAX_SECONDS, suit
from export.frontier.plan import Plan

NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill.methods.candidates, "WHOLE_PAIRS", 100)


def test_small_data_is_left_alone(data: Interactions) -> None:
    assert suit(Plan(), NOTHING, data) == (Plan(), [])


@pytest.mark.usefixtures("large")
def test_large_data_get_the_recipe_and_what_it_is_compared_with_and_the_rest_is_said(data: Interactions) -> None:
    plan, notes = suit(Plan(), NOTHING, data)
    assert plan.methods == ("scratch", "freqd", "ce+rcekd")
    assert notes[0].startswith("fd, ce, freqd+ce: left out, because of 1.1e+04 pairs")
    assert "for 600 s each, those of ce+rcekd for 10 epochs" in notes[1]
    assert "--max-seconds or --epochs" in notes[1]
    bounds = {name: (job.options.epochs, job.options.max_seconds) for name, job in plan.jobs(data).items()}
    assert bounds["ce+rcekd-d8"] == (10, None)
    assert bounds["scratch-d8"] == bounds["freqd-d8"] == (1000, LARGE_MAX_SECONDS)


@pytest.mark.usefixtures("large")
def test_what_is_asked_for_is_done(data: Interactions) -> None:
    plan = Plan(methods=("ce",), training={"epochs": 3, "max_seconds": None})
    assert suit(plan, {"methods", "epochs"}, data) == (plan, [])
    assert suit(Plan(methods=()), {"methods"}, data) == (Plan(methods=()), [])
