from __future__ import annotations

import json
from pathlib import Path

from distill.report.frontier import build_frontier
from distill.report.material import Material, gather
from distill.report.section import Cell, Chart, LeftOut, Section, Table, Text
from tests.distill.report.conftest import Gallery
from tests.distill.report.invented import invent_frontier


def build(gallery: Gallery, path: Path) -> Section:
    section = build_frontier(gather(gallery.students, frontier=path))
    assert isinstance(section, Section)
    return section


def test_the_recommended_candidate_stands_out(gallery: Gallery, tmp_path: Path) -> None:
    section = build(gallery, invent_frontier(tmp_path / "frontier.json", gallery.data))
    assert "freqd-d4-int8 is recommended within the limits min kept 0.95." in section.lead
    reason, chart, best, others, commands = section.parts
    assert reason == Text("Take freqd-d4-int8.")
    assert isinstance(chart, Chart)
    assert list(chart.legend) == [("teacher", 0), ("svd", 3), ("freqd", 1)]
    assert isinstance(best, Table)
    assert [isinstance(row[0], Cell) and (row[0].text, row[0].emphasis) for row in best.rows] == [
        ("teacher-float32", ""), ("freqd-d4-int8", "best"),
    ]  # fmt: skip
    assert list(best.rows[1][1:]) == [
        "2", Cell("97.0%", share=0.97), "96.0% to 98.0%", "–", "4", "16", "15", "30", "7", "yes",
    ]  # fmt: skip
    assert isinstance(others, Table)
    assert (others.fold, others.caption, others.rows[0][-1]) == (True, "The other 1 candidates", "no")
    assert commands == Text("lowpass publish frontier", title="What to run next")


def test_where_nothing_fits_the_page_says_so(gallery: Gallery, tmp_path: Path) -> None:
    path = invent_frontier(tmp_path / "frontier.json", gallery.data)
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "recommended": None, "limits": {"max_p99_ms": 0.001, "min_kept": None}}))
    assert "No candidate fits within the limits max p99 ms 0.001." in build(gallery, path).lead


def test_without_a_frontier_the_command_is_named(gallery: Gallery) -> None:
    left_out = build_frontier(Material("toy", (), None))
    assert isinstance(left_out, LeftOut)
    assert "lowpass frontier" in left_out.remedy
