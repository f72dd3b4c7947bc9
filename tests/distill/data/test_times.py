from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill.data.readers import read_table
from distill.data.times import SECONDS_PER_UNIT, as_date, find_other_unit, tell_unit

SECONDS = np.array([1705191332, 1700448902, 1708947158])


@pytest.mark.parametrize("unit", sorted(SECONDS_PER_UNIT))
def test_a_unit_is_told_by_its_magnitude(unit: str) -> None:
    times = (SECONDS / SECONDS_PER_UNIT[unit]).astype(np.int64)
    assert tell_unit(times) == unit
    assert find_other_unit(times) is None
    assert as_date(times[0].item(), unit) == "2024-01-14 00:15:32"


def test_counters_offsets_and_years_have_none() -> None:
    for times in (np.arange(1000), np.linspace(0, 1e13, 1000), np.array([20240105, 20240106]), np.array([0, -1])):
        assert tell_unit(times) is None
        assert find_other_unit(times) is None
    assert as_date(20240105, None) == "20240105"
    assert as_date(1.5, None) == "1.5"
    assert as_date(1e300, "s") == "1e+300"


def test_the_first_time_of_another_unit_is_found() -> None:
    times = np.array([0, 1705191332, 1708947158, 1700448902000, 1706960422] * 3 + [1705191332] * 20)
    assert find_other_unit(times) == (3, "ms", "s")


def test_times_that_a_spreadsheet_rounded_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,timestamp\n1,2,1705191332\n1,3,1.71E+09\n1,4,1.7e9\n1,5,1.705191332e+09\n")
    table = read_table(path)
    assert table.reading is not None
    assert table.reading.notes == (
        f"{path}: line 3: time '1.71E+09': 2 times look rounded by a spreadsheet; they do not order what happened",
    )
