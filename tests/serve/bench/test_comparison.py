from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serve.bench.comparison import Measured, gains_over, read_level
from serve.bench.errors import BenchError
from serve.bench.windows import STAGES, Window
from tests.serve.bench.toy_measurements import STUDENT, TEACHER, measured
from tests.serve.bench.toy_windows import window


def test_figures_of_a_known_window() -> None:
    stages = np.zeros((3, len(STAGES)))
    stages[:, STAGES.index("search")] = [10, 30, 20]
    seen = Window(np.array([1.0, 3.0, 2.0]), np.zeros(3), stages, 1.5, {"UNAVAILABLE": 1}, load_busy=0.5)
    found = read_level(seen, server_cpu_seconds=0.3)
    assert found["throughput"] == pytest.approx(2.0)
    assert (found["p50_ms"], found["p95_ms"], found["p99_ms"]) == pytest.approx((2.0, 3.0, 3.0))
    assert found["search_us"] == 20
    assert found["load_busy"] == pytest.approx(0.5)
    assert found["server_cpu_us"] == pytest.approx(100_000)


def test_no_answer_is_an_error_that_counts_the_failures() -> None:
    with pytest.raises(BenchError, match="2 × UNAVAILABLE"):
        read_level(window([], errors={"UNAVAILABLE": 2}), 0.1)


def test_gains_are_above_one_where_the_other_is_better() -> None:
    gain = {name: found.ratio for name, found in gains_over(TEACHER, STUDENT).items()}
    assert gain["item_bytes"] == 20
    assert gain["memory"] == 2
    assert gain["p50_at_1"] == gain["p99_at_32"] == 4
    assert gain["throughput_at_32"] == gain["throughput_per_core"] == 5
    assert gain["search"] == 15
    assert gain["recall"] == pytest.approx(0.8)


def test_what_was_not_measured_has_no_ratio() -> None:
    too_short = {**STUDENT.levels, "32": {**STUDENT.levels["32"], "server_cpu_us": measured(0.0)}}
    unknown = replace(STUDENT, memory={}, levels=too_short)
    assert {"memory", "throughput_per_core"}.isdisjoint(gains_over(TEACHER, unknown))
    assert unknown.answers_per_core is None


def test_what_the_rounds_cannot_tell_apart_is_level() -> None:
    wide = replace(STUDENT, levels={**STUDENT.levels, "1": {**STUDENT.levels["1"], "p50_ms": Measured(1.0, 0.4, 2.5)}})
    gain = gains_over(TEACHER, wide)["p50_at_1"]
    assert gain.level
    assert gain.ratio == 2
    assert not gains_over(TEACHER, STUDENT)["p50_at_1"].level


def test_different_conventions_and_unknown_quality_give_no_share() -> None:
    odd = replace(STUDENT, quality={"recall@20": 0.04, "convention": "other"})
    assert "recall" not in gains_over(TEACHER, odd)
    assert "ndcg" not in gains_over(TEACHER, replace(STUDENT, quality={"convention": "toy"}))
