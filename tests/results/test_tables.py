"""The pages made of cells: each number is where it belongs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from results.cells import BLEND_SECONDS, BLEND_TEST, BLEND_VALIDATION, Cell, add_cell, job_of, read_cells, winning_trial
from results.plan import load_plan
from results.tables import render_pages, render_study, render_summary
from tests.results.toy import PLAN, row, write_plan


def squeezed(text: str) -> str:
    """Tables without the blanks that pad their columns."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def test_a_table_says_what_its_cells_say(tmp_path: Path) -> None:
    plan, path = write_plan(tmp_path), tmp_path / "cells.csv"
    study = plan.studies[0]

    add_cell(path, Cell(study, "teacher"), row(0.5, 0.4))
    for trial, validation in ((0, 0.30), (1, 0.35)):
        add_cell(path, Cell(study, "best", 4, trial, 0), row(validation, 0.2, dim=4, int8=0.19))
    assert winning_trial(study, "scratch", 4, 1, read_cells(path)) is None
    add_cell(path, Cell(study, "best", 4, 1, 7), row(0.37, 0.3, dim=4, int8=0.29))
    cells = read_cells(path)
    text = squeezed(render_study(plan, study, cells, tmp_path / "studies" / "toy.md"))
    assert (
        "| best | 4 | 16 | 2 | 0.3600 ± 0.0141 | 0.2500 ± 0.0707 | 0.1250 ± 0.0354 | 62.5% | 0.2400 "
        "| 0.1000 | 0.3600 | 0.3600 | – | 4 | 20 | 1024 |"
    ) in text
    assert "| best | 4 | ce.num_top 9, weight_decay 0.0001 | 0.3500 | 0.2000 | 20 | ✓ |" in text
    assert "scratch" not in text, "what has not been run is left out"
    assert "| toy/bprmf | 12 | 0.4000 | 4 | – | – | 62.5% ± 17.7% |" in squeezed(render_summary(plan, cells))


@pytest.mark.parametrize(("blend_seconds", "reached"), [(None, "0.3000"), (2.0, "0.2000"), (9.0, "0.0000")])
def test_a_third_of_the_teachers_time_counts_the_blend(
    tmp_path: Path, blend_seconds: float | None, reached: str
) -> None:
    """The teacher took 20 s; 6.7 are a third."""
    plan = write_plan(tmp_path)
    study = plan.studies[0]
    curve = [[1.0, 0.1], [4.0, 0.2], [6.0, 0.3], [20.0, 0.35]]
    learner = {**row(0.35, 0.2, dim=4, int8=0.2), "curve": curve, BLEND_SECONDS: blend_seconds}
    cells = {Cell(study, "teacher").name: row(0.5, 0.4), Cell(study, "scratch", 4, 0, 0).name: learner}
    text = squeezed(render_study(plan, study, cells, tmp_path / "studies" / "toy.md"))
    assert f"| {reached} | 4 | 20 | 1024 |" in text


def test_a_blend_stands_beside_who_learned_from_it_and_is_described_once(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    study = plan.studies[0]
    cells = {Cell(study, "teacher").name: row(0.5, 0.4)}
    blend = {"blend": "teacher + 0.5 gfcf", BLEND_VALIDATION: 0.55, BLEND_TEST: 0.45, BLEND_SECONDS: 12.0}
    for trial, validation in ((0, 0.30), (1, 0.35)):
        cells[Cell(study, "best", 4, trial, 0).name] = {**row(validation, 0.2, dim=4), **blend}
    for dim in (3, 4):
        cells[Cell(study, "scratch", dim, 0, 0).name] = row(0.3, 0.1, dim=dim)
    text = squeezed(render_study(plan, study, cells, tmp_path / "studies" / "toy.md"))
    assert "| validation Recall@20 | test Recall@20 | its lists' test Recall@20 | test NDCG@20 |" in text
    assert "| best | 4 | 16 | 1 | 0.3500 | 0.2000 | 0.4500 | 0.1000 | 50.0% |" in text
    assert "| scratch | 4 | 16 | 1 | 0.3000 | 0.1000 | – | 0.0500 | 25.0% |" in text
    assert (
        text.count(
            "\n- `best` (d 4) from teacher + 0.5 gfcf: validation Recall@20 0.5500, test 0.4500; 12 processor s\n"
        )
        == 1
    )
    for dim in (3, 4):
        cells[Cell(study, "scratch", dim, 0, 0).name] = {**row(0.3, 0.1, dim=dim), **blend}
    text = render_study(plan, study, cells, tmp_path / "studies" / "toy.md")
    assert "- `scratch` (d 4, 3), `best` (d 4) from teacher" in text


def test_a_stale_row_is_on_no_page(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    teacher = Cell(plan.studies[0], "teacher")
    usual = job_of(plan, teacher).options.weight_decay
    settings = {**row(0.5, 0.4)["settings"], "epochs": 6, "weight_decay": usual}
    values = {**row(0.5, 0.4), **teacher.key, "settings": settings}
    out = tmp_path / "RESULTS.md"
    assert len(render_pages(plan, {teacher.name: values}, tmp_path, out)) == 2
    stale = {**values, "settings": {**settings, "dim": 13}}
    assert render_pages(plan, {teacher.name: stale}, tmp_path, out) == {out: "# Results\n"}


def test_the_summary_ends_with_means_over_the_studies_that_all_have(tmp_path: Path) -> None:
    first = PLAN.index("[[study]]")
    other = PLAN[first:].replace('data = "toy"', 'data = "other"')
    text = PLAN + other.replace('"popularity", ', "")
    plan = write_plan(tmp_path, text.replace("[data]", '[data]\nother = { source = "toy.csv" }'))
    path = tmp_path / "cells.csv"

    for study, share in zip(plan.studies, (0.5, 0.9), strict=True):
        add_cell(path, Cell(study, "teacher"), row(0.2, 0.4))
        for trial in (0, 1):
            add_cell(path, Cell(study, "best", 4, trial, 0), row(0.2, 0.4 * share))
    add_cell(path, Cell(plan.studies[0], "svd", 4), row(0.1, 0.1))
    lines = squeezed(render_summary(plan, read_cells(path))).splitlines()
    assert lines[-2:] == ["| all, test | | | | – | – | 70.0% |", "| all, validation | | | | – | – | 100.0% |"]


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def our_pages() -> dict[Path, str]:
    """Our own pages, made anew."""
    folder = ROOT / "results"
    return render_pages(load_plan(folder / "plan.toml"), read_cells(folder / "cells.csv"), folder, ROOT / "RESULTS.md")


def test_our_pages_are_those_of_the_table_and_the_readings(our_pages: dict[Path, str]) -> None:
    for path, text in our_pages.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python -m results --render"
    elsewhere = {ROOT / "RESULTS.md", ROOT / "results" / "notes" / "published.md"}
    assert set((ROOT / "results" / "studies").iterdir()) == set(our_pages) - elsewhere


def test_the_first_page_is_short_and_leads_to_every_other(our_pages: dict[Path, str]) -> None:
    first = our_pages[ROOT / "RESULTS.md"]
    assert len(first.splitlines()) <= 150
    pages = [*our_pages, *(ROOT / "results" / "notes").iterdir()]
    assert len(pages) > len(our_pages)
    for path in pages:
        if path.name != "RESULTS.md":
            assert f"]({path.relative_to(ROOT).as_posix()})" in first


@pytest.mark.parametrize("page", [ROOT / "RESULTS.md", *sorted((ROOT / "results").rglob("*.md"))], ids=str)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    in_readings = {"introduction.md": ROOT, "conclusion.md": ROOT, "published.md": ROOT / "results" / "notes"}
    folder = page.parent
    if folder.name == "readings":
        folder = in_readings.get(page.name, ROOT / "results" / "studies")
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (folder / link).exists(), link
