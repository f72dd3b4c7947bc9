"""Blends that taught, beside the runs that they taught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distill.evaluation.protocol import Protocol
from distill.report.blends import blends_of, compare_blends, name_teachers, reports_under
from distill.run import Run
from tests.distill.evaluation.test_comparison import build_run

REPORT = {"Recall@10": 0.1, "NDCG@10": 0.05, "Recall@20": 0.3, "NDCG@20": 0.2}
BLEND: dict[str, Any] = {
    "weights": {"teacher": 1.0, "turbocf (alpha 0.5, degree 1)": 0.5},
    "validation": REPORT,
    "test": REPORT,
    "test_all_users": {**REPORT, "Recall@20": 0.25},
}
NAME = "blend: teacher + 0.5 turbocf (alpha 0.5, degree 1)"


@pytest.fixture
def runs() -> list[Run]:
    """Two that the blend taught, one that it did not."""
    taught = [build_run(0.1, seed=seed, method="ce") for seed in range(2)]
    return [*(replace(run, metrics={**run.metrics, "blend": BLEND}) for run in taught), build_run(0.2, seed=0)]


def test_a_blend_that_taught_several_runs_is_one_row(runs: list[Run]) -> None:
    assert blends_of(runs) == {NAME: BLEND}
    (row,) = compare_blends(runs)
    assert (row["label"], row["dim"], row["seeds"], row["epochs"], row["seconds"]) == (NAME, None, [], None, None)
    assert row["test Recall@20"] == row["validation Recall@20"] == {"mean": 0.3, "std": 0.0}
    assert compare_blends(runs[2:]) == []


def test_equal_blends_of_two_teachers_are_two(runs: list[Run]) -> None:
    other = {**BLEND, "test": {**REPORT, "Recall@20": 0.4}}
    stranger = replace(runs[0], config={**runs[0].config, "teacher": "runs/b"}, metrics={"blend": other})
    assert blends_of([*runs, stranger]) == {NAME: BLEND, f"{NAME}, of runs/b": other}


def test_the_average_chooses_the_report(runs: list[Run]) -> None:
    (row,) = compare_blends(runs, average="all")
    assert row["test Recall@20"]["mean"] == 0.25
    assert "validation Recall@20" not in row


def test_a_protocol_that_was_not_reported_is_left_out(runs: list[Run]) -> None:
    assert reports_under(runs, Protocol(), "of all") == {NAME: REPORT}
    assert reports_under(runs, Protocol(cutoffs=(20,)), "of all") == {NAME: REPORT}
    assert reports_under(runs, Protocol(cutoffs=(5,)), "of all") == {}
    assert reports_under(runs, Protocol(mask="train+validation"), "of all") == {}


def test_a_report_on_other_users_is_left_out(runs: list[Run]) -> None:
    report = {**REPORT, "convention": "of some"}
    stranger = replace(runs[0], metrics={"blend": {**BLEND, "test": report}})
    assert reports_under([stranger], Protocol(), "of all") == {}
    assert reports_under([stranger], Protocol(), "of some") == {NAME: report}


def test_who_taught_is_named_in_few_words(runs: list[Run]) -> None:
    assert name_teachers(runs[0]) == "teacher + 0.5 turbocf"
    assert name_teachers(runs[2]) == ""
    beside_a_teacher = {**runs[2].config, "teacher_fingerprint": "ff"}
    assert name_teachers(replace(runs[2], config=beside_a_teacher)) == "teacher"
    assert name_teachers(replace(runs[2], config={**beside_a_teacher, "method": "scratch"})) == ""
