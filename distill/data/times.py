"""Times as numbers: which unit they are in, where units are mixed, and how they read as dates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

SECONDS_PER_UNIT = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
FIRST_SECOND, LAST_SECOND = 631_152_000, 4_102_444_800
"""1990 to 2100: within these years a number tells its unit, because the ranges of two units never meet."""
DAY = 86_400
MOST = 0.9
"""Counters and offsets lie outside of the years of every unit; this share inside means dates."""

Times = npt.NDArray[np.int64] | npt.NDArray[np.float64]


def units_of(times: Times) -> npt.NDArray[np.int8]:
    """Tell each time's unit by its magnitude: a position in `SECONDS_PER_UNIT`, or -1; shape (n,)."""
    units = np.full(len(times), -1, dtype=np.int8)
    for position, scale in enumerate(SECONDS_PER_UNIT.values()):
        units[(times >= FIRST_SECOND / scale) & (times <= LAST_SECOND / scale)] = position
    return units


def tell_unit(times: Times) -> str | None:
    """Tell the unit of nearly all times, a key of `SECONDS_PER_UNIT`, or None where they are no dates."""
    counts = np.bincount(units_of(times) + 1, minlength=len(SECONDS_PER_UNIT) + 1)[1:]
    return list(SECONDS_PER_UNIT)[int(counts.argmax())] if counts.max() >= MOST * max(1, len(times)) else None


def find_other_unit(times: Times) -> tuple[int, str, str] | None:
    """Find where times stop being in one unit.

    Returns:
        (first row of another unit than the first dated row's, that row's unit, the first dated row's unit), or None
        where all are in one unit, or are no dates.
    """
    units = units_of(times)
    dated = units >= 0
    if not dated.any() or dated.mean() < MOST:
        return None
    first = units[int(np.argmax(dated))]
    other = dated & (units != first)
    if not other.any():
        return None
    row = int(np.argmax(other))
    names = list(SECONDS_PER_UNIT)
    return row, names[units[row]], names[first]


def find_early(times: Times) -> npt.NDArray[np.bool_]:
    """Tell which times lie before the second day of 1970, where the others are dates; shape (n,)."""
    # Less than a day's seconds is less than a day in every unit.
    unit = tell_unit(times[times >= DAY])
    return np.zeros(len(times), dtype=bool) if unit is None else times * SECONDS_PER_UNIT[unit] < DAY


def as_date(time: Any, unit: str | None) -> str:
    """Write a time as a date in UTC, or as the number it is where its unit is not known."""
    if unit is None:
        return f"{time:g}" if isinstance(time, float) else str(time)
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(time) * SECONDS_PER_UNIT[unit])
    except OverflowError:
        return str(time)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
