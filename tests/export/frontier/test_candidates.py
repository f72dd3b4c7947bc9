from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distill.methods.candidates
from distill.data.interactions import Interactions
from distill.run import Run, open_run
from export.build.index_choice import BUDGET_SECONDS, choices_by_bytes, choose_index
from export.build.questions import Latency
from export.bundle import IndexCard
from export.frontier import measuring
from export.frontier.candidates import Candidate
from export.frontier.measuring import Judge, measure_candidates
from export.frontier.plan import Plan
from tests.export.toy import toy_run


@pytest.fixture(scope="module")
def runs(workplace: Path, tmp_path_factory: pytest.TempPathFactory, data: Interactions) -> tuple[Run, Run]:
    student = toy_run(tmp_path_factory.mktemp("runs") / "toy-d4", data, 4)
    return open_run(workplace / "teacher"), student


def measure(runs: tuple[Run, Run], data: Interactions, plan: Plan, ann_recall: float = 0.9) -> dict[str, Candidate]:
    found, notes = measure_candidates(plan, Judge(data, 0), runs[0], [runs[1]], ann_recall=ann_recall)
    odd = [str(dim) for dim in sorted({*plan.dims, 4}) if dim % 8 and plan.precisions != ("float32",)]
    assert [note.split(":")[0] for note in notes] == ([f"d = {', '.join(odd)}"] if odd else [])
    assert len({candidate.name for candidate in found}) == len(found)
    return {candidate.name: candidate for candidate in found}


def test_every_precision_of_every_source_the_teacher_first(runs: tuple[Run, Run], data: Interactions) -> None:
    found = measure(runs, data, Plan(dims=(4, 2), precisions=("float16", "int8"), baselines=("popularity",)))
    assert list(found) == [
        "teacher-float32", "teacher-float16", "teacher-int8", "teacher-pq2", "teacher-pq4", "teacher-pq8",
        "svd-d4-float16", "svd-d4-int8", "svd-d2-float16", "svd-d2-int8", "toy-d4-float16", "toy-d4-int8", "popularity",
    ]  # fmt: skip
    names = ("teacher-float32", "teacher-int8", "toy-d4-float16", "toy-d4-int8")
    assert [found[name].code_bytes for name in names] == [64, 16, 8, 4]
    popularity = found["popularity"]
    assert (popularity.servable, popularity.bytes_per_item, popularity.bytes_per_user) == (False, 4, 0)
    assert all(candidate.latency.p50 > 0 for candidate in found.values())


def test_the_svd_of_a_smaller_dimension_is_the_best_of_that_rank(runs: tuple[Run, Run], data: Interactions) -> None:
    # The toy runs are factors of one matrix: cutting the teacher to 4 gives the student's scores.
    found = measure(runs, data, Plan(dims=(4, 8), precisions=("float32",), baselines=()))
    np.testing.assert_allclose(found["svd-d4-float32"].quality.recalls, found["toy-d4-float32"].quality.recalls)


def test_where_scans_are_slow_the_best_stand_under_the_indexes_that_export_would_choose_too(
    runs: tuple[Run, Run], data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(dims=(4,), precisions=("float32", "int8"), baselines=())
    scans = measure(runs, data, plan)
    assert {candidate.index for candidate in scans.values()} <= {"Flat", "SQ8"} | {
        candidate.index for name, candidate in scans.items() if "pq" in name
    }
    monkeypatch.setattr(measuring, "SLOW_US", 0.0)
    asked: list[IndexCard] = []

    def spy(*arguments: Any, budget: float) -> tuple[Any, IndexCard]:
        assert budget == BUDGET_SECONDS, "small data"
        found = choose_index(*arguments, budget=budget)
        asked.append(found[1])
        return found

    monkeypatch.setattr(measuring, "choose_index", spy)
    # A slow scan: whatever an index is, it is quicker.
    monkeypatch.setattr(Judge, "time_scan", lambda *_: Latency(1e6, 1e6))
    found = measure(runs, data, plan)
    others = {name: candidate for name, candidate in found.items() if name not in scans}
    assert any(name.startswith("teacher-float32-") for name in others)
    assert not [name for name in others if "pq" in name.split("-")[1] or "int8" in name], "their codes are the model"
    assert 1 <= len(asked) <= 3, "only what nothing beats, and the teacher"
    rows = [row for card in asked for row in choices_by_bytes(card, 0.9)]
    for name, other in others.items():
        scan = found[name[: name.index("-float32") + len("-float32")]]
        assert (other.quality, other.bytes_per_user) == (scan.quality, scan.bytes_per_user)
        (row,) = [row for row in rows if (row["factory"], row["median_us"]) == (other.index, other.latency.p50)]
        assert (other.search, other.ann_recall, other.code_bytes) == (
            row["search"], row["ann_recall"], row["code_bytes"],
        )  # fmt: skip
        assert other.latency.p99 == row["p99_us"]
        stored_row = 4 * other.dim if "k_factor" in other.search else 0
        assert other.bytes_per_item == round(row["bytes_per_item"]) + stored_row
        assert other.ann_recall >= 0.9
    for card in asked:
        assert (card.factory, card.search) in [(row["factory"], row["search"]) for row in rows]


def test_models_of_large_data_share_the_time_for_indexes_and_what_it_leaves_out_is_told(
    runs: tuple[Run, Run], data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "SLOW_US", 0.0)
    monkeypatch.setattr(distill.methods.candidates, "WHOLE_PAIRS", 0)
    monkeypatch.setattr(measuring, "BUDGET_SECONDS", 0.0)
    plan = Plan(dims=(4,), precisions=("float32",), baselines=())
    _, notes = measure_candidates(plan, Judge(data, 0), runs[0], [])
    told = [note for note in notes if "is left out: the 0 s for the choice were over" in note]
    assert any(note.startswith("teacher-float32: SQ8 ") for note in told)


def test_no_index_reaches_a_recall_above_all(
    runs: tuple[Run, Run], data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "SLOW_US", 0.0)
    plan = Plan(dims=(4,), precisions=("float32", "int8"), baselines=())
    indexes = {candidate.index for candidate in measure(runs, data, plan, ann_recall=1.01).values()}
    assert {index for index in indexes if not index.startswith("PQ")} == {"Flat", "SQ8"}, "scans"


def test_a_baseline_that_needs_too_much_memory_is_left_out_with_a_note(
    runs: tuple[Run, Run], data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "EASE_MAX_BYTES", 1)
    plan = Plan(dims=(4,), precisions=("int8",), baselines=("ease", "itemknn"))
    found, notes = measure_candidates(plan, Judge(data, 0), runs[0], [])
    assert [candidate.name for candidate in found][-1] == "itemknn"
    assert found[-1].bytes_per_user > 0
    assert notes[-1].startswith("ease is left out: ")
