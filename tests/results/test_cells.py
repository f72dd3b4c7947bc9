"""The table of cells: what is written is what is read, nothing is lost by a cut, and what is wrong is named."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from distill.errors import DataError
from distill.training.runner import run_all
from results.cells import COLUMNS, Cell, add_cell, read_cells, winning_trial
from results.plan import load_plan
from tests.results.toy import row, write_plan


def cells_of(folder: Path) -> list[Cell]:
    study = write_plan(folder).studies[0]
    students = [Cell(study, "best", 4, trial, seed) for trial in (0, 1) for seed in (0, 7)]
    return [Cell(study, "teacher"), Cell(study, "svd", 4), *students]


def add_trials(path: Path, folder: Path, seed: int) -> None:
    study = load_plan(folder / "plan.toml").studies[0]
    for trial in range(8):
        add_cell(path, Cell(study, "best", 4, trial, seed), row(0.25, 0.5))


def test_what_was_added_is_read_with_its_types_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    assert read_cells(path) == {}
    cells = cells_of(tmp_path)
    for number, cell in enumerate(cells):
        add_cell(path, cell, row(number / 7, 0.1))
    found = read_cells(path)
    assert list(found) == [
        "toy/bprmf/best-d4-t0-s0",
        "toy/bprmf/best-d4-t0-s7",
        "toy/bprmf/best-d4-t1-s0",
        "toy/bprmf/best-d4-t1-s7",
        "toy/bprmf/svd-d4",
        "toy/bprmf/teacher",
    ], "in an order of their own"
    for number, cell in enumerate(cells):
        assert found[cell.name] == {**row(number / 7, 0.1), **cell.key}
    before = path.read_bytes()
    add_cell(path, cells[0], row(0.9, 0.9))
    assert path.read_bytes() == before, "a cell that is there is not replaced"
    assert winning_trial(cells[0].study, "best", 4, 2, found) == 1


def test_an_addition_that_is_cut_off_leaves_the_table_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cells.csv"
    first, second, *_ = cells_of(tmp_path)
    add_cell(path, first, row(0.5, 0.5))
    before = path.read_bytes()

    def cut(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", cut)
        with pytest.raises(KeyboardInterrupt):
            add_cell(path, second, row(0.5, 0.5))
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cells.csv", "plan.toml"], "and no draft"
    add_cell(path, second, row(0.5, 0.5))
    assert set(read_cells(path)) == {first.name, second.name}


def test_processes_that_finish_together_all_leave_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    write_plan(tmp_path)
    work = {str(seed): partial(add_trials, path, tmp_path, seed) for seed in range(3)}
    run_all(work, 3, title="adding", unit="seed")
    assert len(read_cells(path)) == 24


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trial,seed", "trial,seed,mood", r"cells\.csv:1: unknown column 'mood'; the columns are study, "),
        ("trial,seed", "trial", r"cells\.csv:1: column 'seed' is there 0 times, not once"),
        ("trial,seed", "trial,seed,seed", r"cells\.csv:1: column 'seed' is there 2 times, not once"),
        ("best,4,1,0,", "best,4,1,0,5,", rf"cells\.csv:3: {len(COLUMNS) + 1} values for {len(COLUMNS)} columns"),
        ("best,4,1,0,", "best,4,one,0,", r"cells\.csv:3: column 'trial': 'one' cannot be read"),
        ('best,4,1,0,"{', 'best,4,1,0,"', r"cells\.csv:3: column 'settings': '.*' cannot be read"),
        ("best,4,1,0,", "best,4,0,0,", r"cells\.csv:3: toy/bprmf/best-d4-t0-s0 is there already"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "cells.csv"
    study = write_plan(tmp_path).studies[0]
    for trial in (0, 1):
        add_cell(path, Cell(study, "best", 4, trial, 0), row(0.5, 0.5))
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_cells(path)


def test_our_own_table_has_every_study_and_each_training_its_numbers() -> None:
    path = Path(__file__).resolve().parents[2] / "results" / "cells.csv"
    cells = read_cells(path)
    assert len(cells) >= 400
    assert path.stat().st_size < 500_000
    trained = [row for row in cells.values() if row["trial"] is not None]
    assert len(trained) >= 340
    for values in trained:
        is_blend = values["settings"].get("co_teachers", "none") != "none"
        missing = {name for name, value in values.items() if value is None}
        assert {name for name in missing if not name.startswith(("blend", "teacher", "curve"))} == set(), values
        assert any(name.startswith("blend") for name in missing) != is_blend, values
        assert "teacher" not in missing or is_blend, "without a teacher others teach"
        assert 0 < values["int8 test Recall@20"] < 1
        assert values["settings"]["dim"] == values["dim"]
    datas = {(name.split("/")[0], values["data"]) for name, values in cells.items()}
    assert len(datas) == len({name for name, _ in datas}), "a study's cells are all of the same data"
