from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("name", ["reports", "reports of ties"])
def test_two_ranks_report_what_one_process_does(found: Any, name: str) -> None:
    report, wanted = found["checkpoint"][name]
    assert report.keys() == wanted.keys()
    for key, value in wanted.items():
        assert report[key] == (pytest.approx(value, abs=2e-6) if "@" in key else value), key


def test_beyond_the_bound_a_sample_of_users_is_asked_and_said(found: Any) -> None:
    sampled = found["checkpoint"]["sampled"]
    assert sampled["num_users"] == 20
    assert " drawn" in sampled["convention"]
    assert "20 of " in sampled["convention"]
    assert 0 < sampled["standard_error"]["Recall@20"] < 0.2
