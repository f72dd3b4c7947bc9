"""Waiting for what comes about by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(check: Callable[[], T], what: str = "did not come about", *, within: float) -> T:
    """What a check gives, once that is true; it must be within so many seconds."""
    give_up = time.monotonic() + within
    while not (found := check()):
        assert time.monotonic() < give_up, f"{what}: not within {within:g} s"
        time.sleep(0.02)
    return found
