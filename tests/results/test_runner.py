"""A small plan run for real on invented data, by the command that runs ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lowpass
from distill.data.interactions import load_interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.run import open_run
from results.__main__ import results
from results.cells import TEST, Cell, Row, read_cells, winning_trial, write_cells
from results.plan import load_plan
from results.untrained import build_untrained, rank_decoded
from tests.results.toy import write_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that has been run."""
    folder = tmp_path_factory.mktemp("evidence")
    write_plan(folder / "results")
    (folder / "results" / "readings").mkdir()
    for name, text in {"introduction": "How it was done.", "toy-bprmf": "What it says.", "conclusion": "So."}.items():
        (folder / "results" / "readings" / f"{name}.md").write_text(text)
    data = synthesize(SyntheticOptions(num_users=60, num_items=50, num_clusters=6, mean_interactions=12))
    pairs = (data.train + data.validation + data.test).tocoo()
    lines = [f"{user},{item}" for user, item in zip(pairs.row, pairs.col, strict=True)]
    (folder / "toy.csv").write_text("\n".join(["user_id,item_id", *lines]))
    assert run(folder) == 0
    return folder


@pytest.fixture
def fresh(folder: Path, tmp_path: Path) -> Path:
    """A copy of it without the runs, as in a clone."""
    shutil.copy(folder / "toy.csv", tmp_path / "toy.csv")
    shutil.copytree(folder / "results", tmp_path / "results")
    return tmp_path


def run(folder: Path, *more: str) -> int:
    places = ["--results", folder / "results", "--work", folder / "work", "--out", folder / "RESULTS.md"]
    return lowpass.main([*map(str, places), "--sources", str(folder), "--jobs", "2", *more], results)


def cells_of(folder: Path) -> dict[str, Row]:
    return read_cells(folder / "results" / "cells.csv")


def change(folder: Path, edit: Callable[[dict[str, Row]], object]) -> None:
    cells = cells_of(folder)
    edit(cells)
    write_cells(folder / "results" / "cells.csv", cells)


def test_every_cell_is_there_once_with_its_settings_progress_and_cost(folder: Path) -> None:
    cells = cells_of(folder)
    study = load_plan(folder / "results" / "plan.toml").studies[0]
    winner = winning_trial(study, "best", 4, 2, cells)
    assert sorted(cells) == sorted(
        f"toy/bprmf/{name}"
        for name in (
            "teacher",
            "popularity-d4",
            "svd-d4",
            "teacher-float16-d4",
            "teacher-int8-d4",
            "svd-d3",
            "scratch-d3-t0-s0",
            "scratch-d3-t0-s7",
            "scratch-d4-t0-s0",
            "scratch-d4-t0-s7",
            "best-d4-t0-s0",
            "best-d4-t1-s0",
            f"best-d4-t{winner}-s7",
        )
    )
    row = cells[Cell(study, "best", 4, 1, 0).name]
    assert row["settings"]["ce.num_top"] == 9
    assert (row["settings"]["start"], row["settings"]["weight_decay"]) == ("svd", 1e-4)
    assert row["settings"]["method"] == "freqd+ce"
    assert "freqd.variant" not in row["settings"], "a default is not said"
    assert "teacher" not in row["settings"], "no path of the machine it ran on"
    assert (row["epochs"], row["best_epoch"] in {2, 4}) == (4, True)
    best = [row[f"validation Recall@20 in {seconds} s"] for seconds in (10, 30, 100)]
    assert best[2] == best[1] == best[0] >= row["validation Recall@20"] - 1e-5, "it takes less than a second"
    assert best[0] > 0
    assert row["peak_memory_bytes"] > 10**7
    student, data = open_run(folder / "work/runs/toy/bprmf/best-d4-t1-s0"), load_interactions(folder / "work/data/toy")
    in_bytes = rank_decoded(student, "int8", data)
    assert row["int8 test Recall@20"] == in_bytes["test_all_users"]["Recall@20"]
    assert in_bytes["test"]["num_users"] == student.metrics["test"]["num_users"]
    assert len(row["data"]) == len(row["teacher"]) == 12
    assert {other["data"] for other in cells.values()} == {row["data"]}
    assert cells["toy/bprmf/teacher-int8-d4"]["bytes_per_item"] == 12


def test_a_quantised_teacher_takes_the_bytes_of_its_codes(folder: Path) -> None:
    teacher, data = open_run(folder / "work/runs/toy/bprmf/teacher"), load_interactions(folder / "work/data/toy")
    built = build_untrained("teacher-pq", data, teacher, 3)
    assert built.bytes_per_item == 8, "twelve codes of five bits: 50 items are fewer than 256 centroids"
    assert (built.bytes_per_user, built.settings) == (48, {"dim": 12})
    assert built.metrics["test_all_users"]["Recall@20"] > 0.5 * teacher.metrics["test_all_users"]["Recall@20"]


def test_a_cell_that_fails_takes_no_other_with_it(
    folder: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "work", fresh / "work")
    failing, other = "toy/bprmf/scratch-d4-t0-s0", "toy/bprmf/popularity-d4"
    shutil.rmtree(fresh / "work/runs" / failing)
    (fresh / "work/runs" / failing).write_text("in the way")
    change(fresh, lambda cells: (cells.pop(failing), cells.pop(other)))
    assert run(fresh) == 2
    assert "scratch-d4-t0-s0: is a file" in capsys.readouterr().err
    assert set(cells_of(folder)) - set(cells_of(fresh)) == {failing}


def test_a_cell_that_is_there_is_not_run_again_and_only_picks_cells(folder: Path) -> None:
    name = "toy/bprmf/scratch-d4-t0-s7"
    before = cells_of(folder)
    change(folder, lambda cells: cells.pop(name))
    assert run(folder, "--only", "toy/*/best*") == 0
    assert name not in cells_of(folder)
    assert run(folder, "--only", "toy/*/scratch*") == 0
    assert cells_of(folder) == before, "the run itself was still there"


def test_where_only_the_cells_are_left_the_teacher_is_trained_again(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, student = "toy/bprmf/teacher", "toy/bprmf/scratch-d4-t0-s7"
    recorded, wanted = cells_of(fresh)[teacher], cells_of(fresh)[student]
    change(fresh, lambda cells: cells.pop(student))
    assert run(fresh) == 0
    found = cells_of(fresh)
    same = ("settings", "data", "teacher")
    assert [found[student][column] for column in same] == [wanted[column] for column in same], "to the last bit"
    assert found[teacher] == recorded
    for by, code in ((1e-4, 0), (1.1e-3, 2)):  # another processor rounds otherwise; another teacher is another one

        def edit(cells: dict[str, Row], by: float = by) -> None:
            del cells[student]
            cells[teacher] = {**recorded, TEST: recorded[TEST] + by}

        change(fresh, edit)
        assert run(fresh) == code
    assert "teacher: its test Recall@20 is" in capsys.readouterr().err
    assert student not in cells_of(fresh)


def test_missing_cells_are_listed(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fresh, "--list") == 0
    assert capsys.readouterr().out == "13 of 13 cells are there\n"
    change(fresh, lambda cells: cells.pop("toy/bprmf/svd-d4"))
    assert run(fresh, "--list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"cells": 13, "missing": ["toy/bprmf/svd-d4"], "stale": []}


def test_rows_of_other_settings_are_listed_shown_nowhere_and_run_again(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = fresh / "results" / "plan.toml"
    plan.write_text(plan.read_text().replace('"ce.num_top" = 9', '"ce.num_top" = 8'))
    before = cells_of(fresh)
    stale = [name for name in before if "best-d4-t1" in name]
    assert run(fresh, "--list", "--only", "*best*") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(stale)] == [f"{name}: stale, not what the plan says now; it will be run again"
                                   for name in stale]  # fmt: skip
    assert lines[-1] == "1 of 2 cells are there, 1 rows are stale", "which trial wins is open again"
    assert run(fresh, "--list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stale"] == stale
    assert run(fresh, "--render") == 0
    page = fresh / "results" / "studies" / "toy-bprmf.md"
    assert "ce.num_top 8" not in page.read_text()
    assert cells_of(fresh) == before
    assert run(fresh, "--only", "*best*") == 0
    after = cells_of(fresh)
    assert {name for name in before if after[name] != before[name]} == set(stale), "those alone are run again"
    assert "ce.num_top 8" in page.read_text()


def test_pages_hold_tables_spread_and_readings_and_are_made_again_of_the_table_alone(folder: Path, fresh: Path) -> None:
    first = (folder / "RESULTS.md").read_text()
    assert first.startswith("# Results\n\nHow it was done.\n\n| study ")
    assert "\n\n- [toy/bprmf](results/studies/toy-bprmf.md)\n\n" in first
    assert first.endswith("\n\nSo.\n")
    study = (folder / "results" / "studies" / "toy-bprmf.md").read_text()
    assert study.startswith("# toy/bprmf\n")
    assert "\n\nWhat it says.\n\n" in study
    lines = [" ".join(line.split()) for line in study.splitlines()]
    names = {line.split(" | ")[0].strip("| *") for line in lines if " | " in line}
    assert {"teacher", "popularity", "svd", "teacher-float16", "teacher-int8", "scratch", "best"} <= names
    assert " ± " in next(line for line in lines if line.startswith("| scratch | 4 | 16 | 2 |"))
    shutil.rmtree(fresh / "results" / "studies")
    assert run(fresh, "--render") == 0
    assert not (fresh / "work").exists(), "nothing was run"
    assert (fresh / "RESULTS.md").read_text() == first
    assert (fresh / "results" / "studies" / "toy-bprmf.md").read_text() == study


def test_help_has_an_example_and_a_wrong_table_is_the_users_fault(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fresh, "--help") == 0
    assert "Example: python -m results --only" in capsys.readouterr().out
    table = fresh / "results" / "cells.csv"
    table.write_text(table.read_text().replace("trial,seed", "trial,mood"))
    assert run(fresh, "--render") == 2
    assert "cells.csv:1: unknown column 'mood'" in capsys.readouterr().err
    (fresh / "results" / "plan.toml").unlink()
    assert run(fresh) == 2
    assert "plan.toml: unreadable plan" in capsys.readouterr().err
