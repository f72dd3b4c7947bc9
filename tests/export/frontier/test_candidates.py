from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.run import Run, open_run
from export.frontier import candidates
from export.frontier.candidates import Candidate, measure_candidates
from export.frontier.plan import Plan
from tests.export.toy import toy_run


@pytest.fixture(scope="module")
def runs(workplace: Path, tmp_path_factory: pytest.TempPathFactory, data: Interactions) -> tuple[Run, Run]:
    student = toy_run(tmp_path_factory.mktemp("runs") / "toy-d4", data, 4)
    return open_run(workplace / "teacher"), student


def measure(runs: tuple[Run, Run], data: Interactions, plan: Plan, ann_recall: float = 0.9) -> dict[str, Candidate]:
    found, notes = measure_candidates(plan, data, runs[0], [runs[1]], ann_recall=ann_recall)
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


def test_graphs_stand_beside_the_best_scans_where_scans_are_slow(
    runs: tuple[Run, Run], data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(dims=(4,), precisions=("float32", "int8"), baselines=())
    assert not [name for name in measure(runs, data, plan) if "hnsw" in name]
    monkeypatch.setattr(candidates, "GRAPH_FROM_US", 0.0)
    found = measure(runs, data, plan)
    graphs = {name: candidate for name, candidate in found.items() if "hnsw" in name}
    assert {"teacher-float32-hnsw16", "teacher-float32-hnsw32"} <= set(graphs)
    assert not [name for name in graphs if "pq" in name]
    for name, graph in graphs.items():
        scan = found[name.rsplit("-", 1)[0]]
        assert (graph.quality, graph.code_bytes) == (scan.quality, scan.code_bytes)
        assert graph.bytes_per_item > scan.bytes_per_item + 100
        assert graph.ann_recall >= 0.9
        assert graph.search["efSearch"] >= 32
    assert not [name for name in measure(runs, data, plan, ann_recall=1.01) if "hnsw" in name]


def test_a_baseline_that_needs_too_much_memory_is_left_out_with_a_note(
    runs: tuple[Run, Run], data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "EASE_MAX_BYTES", 1)
    plan = Plan(dims=(4,), precisions=("int8",), baselines=("ease", "itemknn"))
    found, notes = measure_candidates(plan, data, runs[0], [])
    assert [candidate.name for candidate in found][-1] == "itemknn"
    assert found[-1].bytes_per_user > 0
    assert notes[-1].startswith("ease is left out: ")
