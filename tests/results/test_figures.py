"""The picture: its data are the cells', and what is committed is what the cells draw."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from results.cells import BLEND_SECONDS, Cell, Row, read_cells, within
from results.figures import (
    draw_quality,
    levels_of,
    picture_paths,
    pictured,
    render_figures,
    series_of_size,
    series_of_time,
)
from results.plan import Plan, load_plan
from tests.results.toy import PLAN, row, write_plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The toy plan with a baseline that has no item vectors."""
    return write_plan(tmp_path, PLAN.replace('"popularity"', '"popularity", "ease"'))


@pytest.fixture
def cells(plan: Plan) -> dict[str, Row]:
    """A teacher, one contestant at two dimensions, one with two seeds, and what is not trained."""
    study = plan.studies[0]
    found: dict[str, Row] = {
        Cell(study, "teacher").name: row(0.5, 0.4),
        Cell(study, "ease", 4).name: row(0.4, 0.3),
    }
    for dim, name, values in (
        (3, "svd", row(0.1, 0.1, dim=3)), (4, "svd", row(0.2, 0.2, dim=4)), (4, "teacher-int8", row(0.5, 0.4, dim=3)),
    ):  # fmt: skip
        found[Cell(study, name, dim).name] = values
    for dim in (3, 4):
        found[Cell(study, "scratch", dim, 0, 0).name] = row(0.3, dim / 20, dim=dim, int8=0.1)
    for trial, seed, validation in ((0, 0, 0.2), (1, 0, 0.3), (1, 7, 0.4)):
        found[Cell(study, "best", 4, trial, seed).name] = row(validation, 0.3, dim=4, int8=0.3)
    for name, values in found.items():
        cell = Cell(study, name.split("/")[-1].split("-d")[0], trial=0 if "-t" in name else None)
        found[name] = {**values, "trial": cell.trial}
    return found


def test_sizes_are_those_of_the_stored_items_and_shares_those_of_the_teacher(plan: Plan, cells: dict[str, Row]) -> None:
    study = plan.studies[0]
    by_key = {(one.name, one.marker): one.points for one in series_of_size(plan, study, cells)}
    assert by_key["teacher", "o"] == ((48.0, 1.0),)
    assert by_key["svd", "D"] == ((12.0, 0.25), (16.0, 0.5))
    assert by_key["teacher-int8", "D"] == ((12.0, 1.0),)
    assert np.allclose(by_key["scratch", "o"], [(12, 0.375), (16, 0.5)])
    assert np.allclose(by_key["scratch", "^"], [(3, 0.25), (4, 0.25)])
    assert levels_of(study, cells) == {"EASE": pytest.approx(0.75)}


def test_times_lead_over_what_was_reached_to_the_end_and_the_best_trial_stands(
    plan: Plan, cells: dict[str, Row]
) -> None:
    by_name = {one.name: one for one in series_of_time(plan, plan.studies[0], cells)}
    assert np.allclose(by_name["scratch"].points, [(10, 0.2), (20, 0.6)]), "0.1 after 10 s, 0.3 at the end after 20"
    assert np.allclose(by_name["best"].points, [(20, 0.7)]), "mean over seeds, the end"
    nothing_yet = {**cells["toy/bprmf/teacher"], within(10): 0.0}
    drawn = series_of_time(plan, plan.studies[0], {**cells, "toy/bprmf/teacher": nothing_yet})
    assert drawn[0].points == ((20.0, 1.0),), "before the first evaluation there is no point"


def test_a_line_is_the_mean_of_the_curves_where_rows_have_them_and_counts_the_blend(
    plan: Plan, cells: dict[str, Row]
) -> None:
    name = "toy/bprmf/scratch-d4-t0-s0"
    curve = [[0.0, 0.01], [1.0, 0.1], [4.0, 0.3], [16.0, 0.3]]
    cells |= {name: {**cells[name], "curve": curve, BLEND_SECONDS: 5.0}}
    cells |= {name.replace("s0", "s7"): {**cells[name], "curve": [[1.0, 0.3], [16.0, 0.3]]}}
    spots = np.array({one.name: one for one in series_of_time(plan, plan.studies[0], cells)}["scratch"].points)
    assert np.allclose(spots[[0, -2, -1]], [(6, 0.4), (21, 0.6), (25, 0.6)])
    half_way = np.interp(np.log(2), np.log(spots[:-1, 0] - 5), spots[:-1, 1])
    assert half_way == pytest.approx(0.5, abs=0.02), "in the logarithm of time, as it is drawn"


def test_every_series_is_named_where_its_point_is(plan: Plan, cells: dict[str, Row]) -> None:
    figure = draw_quality(plan, plan.studies[0], cells)
    left, right = ({text.get_text() for text in axes.texts} for axes in figure.axes)
    assert left == {"teacher, 12 numbers", "SVD of the teacher", "teacher, int8", "EASE", *NAMED_STUDENT}
    assert right == {"teacher", "best", NAMED_STUDENT[0]}


NAMED_STUDENT = ("student, not taught", "student, not taught, int8")
ROOT = Path(__file__).resolve().parents[2]


def test_our_pictures_are_those_of_the_table() -> None:
    folder = ROOT / "results"
    plan, cells = load_plan(folder / "plan.toml"), read_cells(folder / "cells.csv")
    drawn = render_figures(plan, cells, folder)
    for study in pictured(plan, cells):
        png, svg = picture_paths(study, folder)
        assert svg.read_bytes() == drawn[svg], "run python -m results --render"
        there, new = imread(png), imread(io.BytesIO(drawn[png]))
        assert there.shape == new.shape
        assert np.abs(there - new).mean() < 1e-3, "another build of the font renderer may shade a letter otherwise"
    assert len(drawn) == 2 * sum(study.pictured for study in plan.studies) > 0
    assert render_figures(plan, {}, folder) == {}
