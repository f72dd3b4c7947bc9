from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill.report.curves import Curve, build_learning, choose_times, read_histories
from distill.report.material import gather
from distill.report.section import Cell, Chart, LeftOut, Section, Table
from distill.run import open_run
from tests.distill.report.conftest import Gallery
from tests.distill.report.invented import invent_run


def test_best_within_a_time_looks_back_and_never_ahead() -> None:
    curve = Curve(np.array([5.0, 10, 15]), np.array([1.0, 2, 4]), np.array([0.1, 0.3, 0.2]))
    assert [curve.best_within(seconds) for seconds in (0.5, 1, 3, 4, 99)] == [None, 0.1, 0.3, 0.3, 0.3]


def curve_from(first: float, last: float) -> Curve:
    return Curve(np.array([1.0, 2.0]), np.array([first, last]), np.array([0.1, 0.2]))


@pytest.mark.parametrize(
    ("spans", "times"),
    [
        ([(0.3, 4.5)], [0.5, 1, 2, 4.5]),
        ([(0.3, 4.5), (3.0, 60.0)], [2, 5, 10, 20, 50, 60]),
        ([(0.01, 900.0)], [20, 50, 100, 200, 500, 900]),
        ([(7.0, 7.0)], [7.0]),
    ],
)
def test_times_are_round_and_end_with_the_last_run(spans: list[tuple[float, float]], times: list[float]) -> None:
    assert choose_times([curve_from(*span) for span in spans]) == pytest.approx(times)


def test_the_table_at_equal_time_is_fair_to_all(gallery: Gallery, tmp_path: Path) -> None:
    slow = [(5.0, 3.0, 0.15), (10.0, 6.0, 0.5)]
    paths = [
        invent_run(tmp_path / f"fd-{seed}", gallery.data, method="fd", seed=seed, teacher=gallery.teacher,
                   history=slow if seed else [(5.0, 1.5, 0.25), (10.0, 3.0, 0.35)]).path
        for seed in (0, 1)
    ]  # fmt: skip
    section = build_learning(gather([*paths, gallery.scratch.path]))
    assert isinstance(section, Section)
    chart, table = section.parts
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    assert list(table.header) == ["run", "1 s", "2 s", "5 s", "6 s"]
    cells = [[cell if isinstance(cell, str) else (cell.text, cell.emphasis) for cell in row[1:]] for row in table.rows]
    teacher, fd, scratch = cells
    assert teacher == [("0.1000", ""), ("0.3000", ""), ("0.3000", ""), ("0.3000", "")]
    assert fd == [("–", ""), ("–", ""), ("0.2500 ± 0.1414", ""), ("0.4250 ± 0.1061", "best")]
    assert scratch == [("0.1000", "best"), ("0.3000", "best"), ("0.3000", "best"), ("0.3000", "")]
    assert [name for name, _ in chart.legend] == [str(row[0].text) for row in table.rows if isinstance(row[0], Cell)]


def test_processor_time_is_told_where_every_run_has_it(gallery: Gallery, tmp_path: Path) -> None:
    run = invent_run(tmp_path / "a", gallery.data)
    _, clock = read_histories([run, gallery.scratch])
    assert clock == "seconds"
    (run.path / "history.csv").write_text("epoch,seconds,processor_seconds,Recall@20\n5,9.0,0.0,0.1\n10,99.0,3.0,0.2\n")
    (curve,), clock = read_histories([open_run(run.path)])
    assert clock == "processor_seconds"
    assert curve is not None
    np.testing.assert_array_equal(curve.seconds, [0.001, 3.0])
    section = build_learning(gather([run.path]))
    assert isinstance(section, Section)
    assert "processor time" in section.lead


def test_runs_from_outside_have_no_curve(gallery: Gallery, tmp_path: Path) -> None:
    bare = invent_run(tmp_path / "bare", gallery.data, dim=3, history=())
    left_out = build_learning(gather([bare.path]))
    assert isinstance(left_out, LeftOut)
    section = build_learning(gather([bare.path, *gallery.students]))
    assert isinstance(section, Section)
    assert isinstance(section.parts[1], Table)
    first = section.parts[1].rows[1]
    assert [cell.text for cell in first[1:] if isinstance(cell, Cell)] == ["–"] * (len(first) - 1)
