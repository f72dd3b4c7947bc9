"""Published figures: as in the file, with shares of their teacher's, and ours beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.errors import SettingError
from results.cells import Cell
from results.published import load_published, render_published
from tests.results.test_tables import squeezed
from tests.results.toy import row, write_plan

FIGURES = """
source = "Table 1"
data = ["A", "B"]
[[table]]
title = "MF"
ours = "toy/bprmf"
row = [
    { name = "teacher", ours = "teacher", figures = [[0.2, 0.1], [0.5, 0.4]] },
    { name = "theirs", ours = "scratch", figures = [[0.1, 0.05], [0.4, 0.3]] },
    { name = "ours alone", ours = "best" },
]
[[table]]
title = "LightGCN"
row = [{ name = "teacher", figures = [[0.25, 0.1], [0.5, 0.4]] }]
"""


def test_a_page_has_theirs_and_ours_side_by_side(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    assert render_published(plan, {}, tmp_path) == ""
    (tmp_path / "published.toml").write_text(FIGURES)
    study = plan.studies[0]
    cells = {Cell(study, "teacher").name: row(0.5, 0.4), Cell(study, "scratch", 4, 0, 0).name: row(0.4, 0.3)}
    page = squeezed(render_published(plan, cells, tmp_path))
    assert "Quoted from Table 1; " in page
    assert "| method | A R / N | kept | B R / N | kept | ours: toy/bprmf | kept |" in page
    assert "| theirs | 0.1000 / 0.0500 | 50.0% | 0.4000 / 0.3000 | 80.0% | 0.3000 / 0.1500 | 75.0% |" in page
    assert "ours alone" not in page, "it has not been run"
    assert page.endswith("| teacher | 0.2500 / 0.1000 | 100.0% | 0.5000 / 0.4000 | 100.0% |")
    for trial in (0, 1):
        cells[Cell(study, "best", 4, trial, 0).name] = row(0.4, 0.2)
    assert "| ours alone | – | – | – | – | 0.2000 / 0.1000 | 50.0% |" in squeezed(
        render_published(plan, cells, tmp_path)
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('data = ["A", "B"]', 'data = ["A"]', "MF, teacher: give 1 pairs of figures"),
        ("0.05], [0.4, 0.3]", "0.05]", "MF, theirs: give 2 pairs of figures"),
        ("title", "titel", "unreadable published figures"),
        ("source", "[", "unreadable published figures"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "published.toml").write_text(FIGURES.replace(old, new, 1))
    with pytest.raises(SettingError, match=rf"published\.toml: {message}"):
        load_published(tmp_path / "published.toml")


def test_our_own_file_has_the_shares_that_are_known(tmp_path: Path) -> None:
    published = load_published(Path(__file__).resolve().parents[2] / "results" / "published.toml")
    kept = {
        (table.title, row.name): [f"{own[0] / whole[0]:.1%}" for own, whole in
                                  zip(row.figures, table.row[0].figures, strict=True)]
        for table in published.table for row in table.row if row.figures
    }  # fmt: skip
    assert kept["MF → MF", "RCE-KD"] == ["97.5%", "98.8%", "101.1%"]
    assert kept["MF → MF", "student"] == ["64.3%", "86.1%", "88.8%"]
    assert kept["LightGCN → LightGCN", "RCE-KD"] == ["81.8%", "97.2%", "100.0%"]
