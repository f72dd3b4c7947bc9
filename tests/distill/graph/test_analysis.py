from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import distill.graph.analysis
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import build_graph
from distill.graph.analysis import (
    View,
    analyze,
    analyze_data,
    build_groups,
    project_by_least_squares,
    read_analysis,
    stack_features,
)
from distill.graph.bands import ChebyshevBands
from distill.graph.spectrum import ExactGroups, exact_spectrum
from distill.run import Run
from tests.distill.toy import build_random

Features = npt.NDArray[np.float32]


def make_run(features: npt.NDArray[Any], num_users: int, metrics: Mapping[str, Any] | None = None) -> Run:
    rows = features.astype(np.float32)
    return Run(Path("run"), {}, rows[:num_users], rows[num_users:], metrics or {})


@pytest.fixture
def data(rng: np.random.Generator) -> Interactions:
    return build_random(rng)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_best_projection_is_the_least_squares_one_of_each_side(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    teacher, student = rng.normal(size=(23, 7)), rng.normal(size=(23, width))
    expected = np.concatenate(
        [
            student[side] @ np.linalg.lstsq(student[side], teacher[side], rcond=None)[0]
            for side in (slice(10), slice(10, None))
        ]
    )
    np.testing.assert_allclose(project_by_least_squares(student, teacher, 10), expected, atol=1e-9)


def test_a_student_with_dependent_columns_is_projected_all_the_same(rng: np.random.Generator) -> None:
    teacher, column = rng.normal(size=(20, 5)), rng.normal(size=(20, 1))
    both = project_by_least_squares(np.hstack([column, 2 * column]), teacher, 8)
    np.testing.assert_allclose(both, project_by_least_squares(column, teacher, 8), atol=1e-12)


@pytest.mark.parametrize("grouping", ["equal-width", "equal-count"])
def test_a_student_that_holds_the_teacher_in_another_basis_keeps_everything(
    rng: np.random.Generator, data: Interactions, grouping: Any
) -> None:
    teacher = rng.normal(size=(55, 6))
    student = np.concatenate([teacher[:30] @ rng.normal(size=(6, 6)), teacher[30:] @ rng.normal(size=(6, 6))])
    groups = build_groups(build_graph(data, "bipartite", 5), 5, grouping, rng)
    analysis = analyze(groups, make_run(teacher, 30), [make_run(student, 30)], ["student"])
    assert analysis.kept_in_all(analysis.students[0]) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(analysis.kept(analysis.students[0])[analysis.occupied], 1, atol=1e-6)


def test_a_student_of_one_frequency_keeps_that_group_and_nothing_else(data: Interactions) -> None:
    graph = build_graph(data, "bipartite", 5)
    spectrum = exact_spectrum(graph)
    low, middle = spectrum.eigenvectors[:, 1], spectrum.eigenvectors[:, 20]
    groups = build_groups(graph, 9, "equal-width", np.random.default_rng(0))
    rows = [int(np.searchsorted(groups.bounds[:, 1], spectrum.frequencies[k])) for k in (1, 20)]
    assert rows[0] < rows[1]
    teacher, student = make_run(np.column_stack([3 * low, middle]), 30), make_run(low[:, None], 30)
    analysis = analyze(groups, teacher, [student], ["student"])
    np.testing.assert_allclose(analysis.teacher_energies[rows], [9, 1], rtol=1e-5)
    np.testing.assert_allclose(analysis.students[0].losses[rows], [0, 1], atol=1e-5)
    np.testing.assert_allclose(analysis.kept(analysis.students[0])[rows], [1, 0], atol=1e-5)
    assert analysis.kept_in_all(analysis.students[0]) == pytest.approx(0.9, rel=1e-5)


@pytest.mark.parametrize("graph", ["bipartite", "cooccurrence"])
def test_losses_sum_to_the_feature_loss_on_both_bases(
    rng: np.random.Generator, data: Interactions, monkeypatch: pytest.MonkeyPatch, graph: Any
) -> None:
    teacher, student = make_run(rng.normal(size=(55, 6)), 30), make_run(rng.normal(size=(55, 2)), 30)
    adjacency = build_graph(data, graph, 3)
    gap = stack_features(teacher) - project_by_least_squares(stack_features(student), stack_features(teacher), 30)
    whole = np.square(gap.astype(np.float64)).sum()
    kinds = []
    for bound in (55, 54):
        monkeypatch.setattr(distill.graph.analysis, "MAX_ENTITIES", bound)
        groups = build_groups(adjacency, 7, "equal-width", rng)
        kinds.append(type(groups))
        analysed = analyze(groups, teacher, [student], ["student"]).students[0]
        assert analysed.losses.sum() == pytest.approx(whole, rel=1e-9)
        assert analysed.energies.sum() == pytest.approx(np.square(stack_features(student)).sum(), rel=1e-5)
    assert kinds == [ExactGroups, ChebyshevBands]


def test_equal_counts_need_an_eigenbasis(data: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.graph.spectrum.MAX_ENTITIES", 54)
    with pytest.raises(SettingError, match="equal width"):
        build_groups(build_graph(data, "bipartite", 5), 5, "equal-count", np.random.default_rng(0))


def test_a_group_the_teacher_has_nothing_in_has_no_kept_share(rng: np.random.Generator, data: Interactions) -> None:
    graph = build_graph(data, "bipartite", 5)
    groups = build_groups(graph, 5, "equal-width", rng)
    lowest = exact_spectrum(graph).eigenvectors[:, :1]
    teacher, student = make_run(lowest, 30), make_run(rng.normal(size=(55, 1)), 30)
    # In float32 a lone eigenvector leaves rounding of 1e-14 of its energy elsewhere: less than leakage.
    analysis = analyze(groups, teacher, [student], ["student"])
    np.testing.assert_array_equal(analysis.occupied, [True, False, False, False, False])
    np.testing.assert_array_equal(np.isnan(analysis.kept(analysis.students[0])), ~analysis.occupied)
    report = json.loads(json.dumps(analysis.as_dict(), allow_nan=False))
    assert report["basis"] == "exact"
    assert report["students"][0]["kept"][1:] == [None] * 4
    assert report["students"][0]["Recall@20"] is None
    assert sum(group["frequencies"] for group in report["groups"]) == 55


def test_what_is_written_reads_back(rng: np.random.Generator, data: Interactions, tmp_path: Path) -> None:
    teacher = make_run(rng.normal(size=(55, 6)), 30)
    students = [make_run(rng.normal(size=(55, 2)), 30, {"test": {"Recall@20": 0.25}})]
    view = View("cooccurrence", 3, 7, "equal-count")
    analysis = analyze_data(data, teacher, students, ["fd"], view)
    (tmp_path / "analysis.json").write_text(json.dumps(analysis.as_dict()))
    found = read_analysis(tmp_path / "analysis.json")
    assert found.as_dict() == analysis.as_dict()
    assert (found.view, found.data) == (view, data.name)
    np.testing.assert_array_equal(found.occupied, analysis.occupied)
