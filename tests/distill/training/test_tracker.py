from __future__ import annotations

import io
import sys

import pytest

import distill.training.tracker
from distill.training.tracker import follow_steps


class Terminal(io.StringIO):
    def __init__(self, *, is_one: bool) -> None:
        super().__init__()
        self.is_one = is_one

    def isatty(self) -> bool:
        return self.is_one


@pytest.mark.parametrize(
    ("is_terminal", "seconds", "shows"), [(True, 0.0, True), (True, 60.0, False), (False, 0.0, False)]
)
def test_steps_are_shown_on_a_terminal_where_an_epoch_is_long(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, seconds: float, shows: bool
) -> None:
    screen = Terminal(is_one=is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(distill.training.tracker, "LONG_EPOCH", seconds)
    assert list(follow_steps(iter(range(5)), 5)) == [0, 1, 2, 3, 4]
    assert ("this epoch" in screen.getvalue()) == shows
