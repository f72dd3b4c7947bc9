from __future__ import annotations

import pytest

from jobs.estimate import last_times, say_estimate, say_seconds
from jobs.record.state import RunState


def test_a_step_is_likely_to_take_what_it_took_when_it_was_last_done() -> None:
    states = [RunState("j", name, "s", "t") for name in "cba"]
    for state, seconds, reused in zip(states, (0.1, 9.0, 30.0), (True, False, False), strict=True):
        step = state.step("teacher")
        step.outcome, step.seconds, step.reused = "done", seconds, reused
    times = last_times(states)
    assert times == {"teacher": 9.0}
    assert say_estimate(["teacher", "distill"], times) == "about 9.0 s left, as the last time"
    assert say_estimate(["distill", "export"], times) == ""


@pytest.mark.parametrize(("seconds", "said"), [(0.44, "0.4 s"), (38.2, "38 s"), (720, "12 min"), (12600, "3.5 h")])
def test_times_in_words(seconds: float, said: str) -> None:
    assert say_seconds(seconds) == said
