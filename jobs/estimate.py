"""How long a step is likely to take: as long as the last time that it was done and not reused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jobs.record.state import DONE, RunState


def last_times(states: Iterable[RunState]) -> dict[str, float]:
    """Step → seconds that it took the last time.

    Args:
        states: Of runs, latest first.
    """
    times: dict[str, float] = {}
    for state in states:
        for step in state.steps:
            if step.outcome == DONE and not step.reused and step.seconds is not None:
                times.setdefault(step.name, step.seconds)
    return times


def say_seconds(seconds: float) -> str:
    """A time in words: "0.4 s", "38 s", "12 min", "3.5 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def say_estimate(steps: Iterable[str], times: Mapping[str, float]) -> str:
    """What is left in words; "" where it is not known of the first step."""
    names = list(steps)
    if not names or names[0] not in times:
        return ""
    return f"about {say_seconds(sum(times.get(name, 0.0) for name in names))} left, as the last time"
