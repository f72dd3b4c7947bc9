from __future__ import annotations

from pathlib import Path

import pytest

from distill.report import frequencies
from distill.report.frequencies import build_frequencies, compute, match_colours
from distill.report.material import Group, gather
from distill.report.section import Cell, Chart, LeftOut, Section, Table
from tests.distill.report.conftest import Gallery
from tests.distill.report.invented import invent_analysis, invent_run


def test_the_analysis_that_is_given_is_drawn_in_the_colours_of_the_page(gallery: Gallery, tmp_path: Path) -> None:
    analysis = invent_analysis(tmp_path / "analysis.json", "toy", ["freqd-0", str(gallery.scratch.path), "stranger"])
    section = build_frequencies(gather(gallery.students, analysis=analysis))
    assert isinstance(section, Section)
    assert "cooccurrence graph" in section.lead
    chart, table = section.parts
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    assert list(chart.legend) == [
        ("teacher (scratch wd 0.001, d 16)", 0), ("freqd bipartite α 0.2 wd 0.001, d 12", 1),
        ("scratch wd 0.001, d 4", 2), ("stranger", 3),
    ]  # fmt: skip
    assert [cell.colour for row in table.rows if isinstance(cell := row[0], Cell)] == [1, 2, 3]
    assert list(table.rows[0][1:]) == ["4", "66.7%", "0.2000"]


def test_a_small_graph_is_analysed_here_one_run_a_setting(gallery: Gallery) -> None:
    section = build_frequencies(gallery.gather())
    assert isinstance(section, Section)
    assert isinstance(section.parts[1], Table)
    assert len(section.parts[1].rows) == 2
    found = compute(gallery.data, gallery.teacher, [gallery.freqd[0], gallery.scratch])
    kept = [student["kept_in_all"] for student in found["students"]]
    assert section.parts[1].rows[0][2] == f"{kept[0]:.1%}"
    assert kept[0] > kept[1]


def test_what_is_missing_is_named(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    without = build_frequencies(gather(gallery.students))
    assert isinstance(without, LeftOut)
    assert "--analysis" in without.remedy
    monkeypatch.setattr(frequencies, "SMALL_GRAPH", 10)
    large = build_frequencies(gallery.gather())
    assert isinstance(large, LeftOut)
    assert large.remedy.startswith("the graph has more than 10 entities: run 'lowpass analyze")


def test_a_name_that_two_settings_share_is_a_stranger(gallery: Gallery, tmp_path: Path) -> None:
    material = gather(gallery.students)
    twin = invent_run(tmp_path / "scratch", gallery.data, dim=3)
    doubled = [*material.groups, Group("twin", (twin,), 7)]
    students = [{"run": "scratch"}, {"run": "scratch"}, {"run": str(twin.path)}]
    assert match_colours(students, doubled) == [("scratch", 8), ("scratch", 8), ("twin", 7)]
