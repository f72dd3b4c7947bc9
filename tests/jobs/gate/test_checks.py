"""The gate holds what does not keep its bound, whatever the reason, and says what to look at."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from distill.data.interactions import load_interactions
from distill.run import open_run
from export.build.publish import ExportOptions, export_run
from export.bundle import ModelRepository, find_bundle
from jobs.gate.checks import CHECKS, Candidate, judge
from jobs.gate.keeping import Passed, find_passed, keep_passed
from jobs.spec.sections import OFF, GateSpec
from jobs.steps.results import Results


@pytest.fixture(scope="module")
def candidate(finished_job: Path) -> Candidate:
    bundle = find_bundle("toy", finished_job / "models")
    steps = finished_job / "jobs" / "toy" / "steps"
    (data,), (teacher,) = steps.glob("prepare-*/data"), steps.glob("teacher-*/teacher")
    return Candidate(bundle, "toy", load_interactions(data), open_run(teacher), bundle, None)


def test_each_bound_of_a_spec_is_a_check() -> None:
    assert list(CHECKS) == [field.name for field in fields(GateSpec)]


def test_every_check_can_hold_and_can_pass(candidate: Candidate) -> None:
    least = {name: CHECKS[name].kind == "least" for name in CHECKS}
    lenient = GateSpec(**{name: 0.0 if is_least else 1e9 for name, is_least in least.items()})
    assert all(row.passed for row in judge(candidate, lenient))
    found = {row.check: row.measured for row in judge(candidate, lenient)}
    strict = GateSpec(**{name: (found[name] or 0) + (1e-6 if is_least else -1e-6) for name, is_least in least.items()})
    rows = judge(candidate, replace(strict, p99_ms=0.0))
    assert [row.check for row in rows if row.passed] == []
    assert all("; look at " in row.look for row in rows)


def test_what_is_off_is_not_measured(candidate: Candidate) -> None:
    began: list[str] = []
    rows = judge(candidate, GateSpec(**dict.fromkeys(CHECKS, OFF)), began.append)  # type: ignore[arg-type]
    assert (began, {row.passed for row in rows}, {row.bound for row in rows}) == ([], {True}, {None})


def test_the_first_version_is_compared_with_none(candidate: Candidate) -> None:
    first = Candidate(candidate.path, "toy", candidate.data, candidate.teacher, None, None)
    rows = {row.check: row for row in judge(first, replace(GateSpec(), p99_ms=1e9, kept_ndcg=0.5, kept_recall=0.5))}
    for name in ("worse_than_stable", "list_overlap", "lost_users", "lost_items"):
        assert (rows[name].measured, rows[name].passed, rows[name].look) == (None, True, "no version has the label yet")


def test_what_cannot_be_measured_holds(candidate: Candidate) -> None:
    data = replace(candidate.data, test=sp.csr_matrix(candidate.data.test.shape, dtype="float32"))
    blind = Candidate(candidate.path, "toy", data, candidate.teacher, candidate.path, None)
    held = {row.check for row in judge(blind, replace(GateSpec(), p99_ms=1e9)) if not row.passed}
    assert held == {"kept_ndcg", "kept_recall", "worse_than_stable"}
    assert blind.quality == {}


def shuffled(candidate: Candidate, folder: Path) -> Path:
    """The bundle of a student whose items were put in another order."""
    (path,) = candidate.path.parents[2].glob("jobs/toy/steps/distill-*/student")
    student = open_run(path)
    order = np.random.default_rng(0).permutation(candidate.data.num_items)
    broken = replace(student, item_embeddings=np.asarray(student.item_embeddings)[order])
    return export_run(broken, candidate.data, ModelRepository(folder), "toy", ExportOptions(budget=0))


def test_a_student_with_shuffled_items_is_held_for_its_lists(candidate: Candidate, tmp_path: Path) -> None:
    broken = Candidate(shuffled(candidate, tmp_path), "toy", candidate.data, candidate.teacher, candidate.path, None)
    only = GateSpec(**{**dict.fromkeys(CHECKS, OFF), "list_overlap": GateSpec().list_overlap})  # type: ignore[arg-type]
    rows = {row.check: row for row in judge(broken, only)}
    assert [row.check for row in rows.values() if not row.passed] == ["list_overlap"]
    assert rows["list_overlap"].measured is not None
    assert rows["list_overlap"].measured < 0.3 == rows["list_overlap"].bound
    assert "of the 6 best of 60 users, as version 1 has them, among the 60 items of both; look at " in (
        rows["list_overlap"].look
    )
    same = {row.check: row for row in judge(candidate, only)}
    assert (same["list_overlap"].measured, same["list_overlap"].passed) == (1.0, True)


def test_versions_of_other_ids_have_no_lists_to_share(candidate: Candidate) -> None:
    data = replace(candidate.data, user_ids=np.array([f"x{row}" for row in range(candidate.data.num_users)]))
    strange = Candidate(candidate.path, "toy", data, candidate.teacher, candidate.path, None)
    only = GateSpec(**{**dict.fromkeys(CHECKS, OFF), "list_overlap": 0.3})  # type: ignore[arg-type]
    (row,) = (row for row in judge(strange, only) if row.bound is not None)
    assert (row.measured, row.passed) == (None, False)
    assert "version 1: no users or no items in common" in row.look


def test_what_passed_is_kept_under_its_key(candidate: Candidate, tmp_path: Path) -> None:
    results = Results(tmp_path)
    bounds = replace(GateSpec(), p99_ms=1e9, kept_ndcg=0.5, kept_recall=0.5)
    passed = Passed(judge(candidate, bounds), candidate.quality, "9 of 9 checks passed")
    assert find_passed(results, "k" * 64) is None
    keep_passed(results, "k" * 64, passed, 1.0)
    assert find_passed(results, "k" * 64) == passed
