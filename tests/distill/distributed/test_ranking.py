from __future__ import annotations

from typing import Any

import pytest


def test_two_ranks_report_what_one_process_does(found: Any) -> None:
    report, wanted = found["checkpoint"]["report"], found["checkpoint"]["one process"]
    assert report["convention"] == wanted["convention"]
    assert report["num_users"] == wanted["num_users"]
    for name in wanted:
        if "@" in name:
            assert report[name] == pytest.approx(wanted[name], abs=2e-6), name


def test_beyond_the_bound_a_sample_of_users_is_asked_and_said(found: Any) -> None:
    sampled = found["checkpoint"]["sampled"]
    assert 19 <= sampled["num_users"] <= 21
    assert " drawn" in sampled["convention"]
    assert f"{sampled['num_users']} of " in sampled["convention"]
