"""A small plan run for real on invented data, and its tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import lowpass
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.errors import SettingError
from results.cells import Cell, read_cell, winning_trial, write_cell
from results.plan import Plan, load_plan, num_trials
from results.runner import job_of
from results.summary import render_summary
from results.tables import render_study

PLAN = """
epochs = 4
patience = 4
eval_every = 2
summary = ["svd", "scratch", "best"]
[data]
toy = "toy.csv --name toy --split random"
[contestants.scratch]
method = "scratch"
trials = [{ learning_rate = 1e-2 }]
[contestants.best]
method = "freqd+ce"
start = "svd"
trials = [{ "ce.num_top" = 5 }, { "ce.num_top" = 9, weight_decay = 1e-4 }]
[[study]]
data = "toy"
backbone = "bprmf"
teacher = { dim = 12, epochs = 6, patience = 6, learning_rate = 1e-2 }
dim = 4
more_dims = { 3 = ["scratch"] }
seeds = [0, 7]
contestants = ["scratch", "best"]
untrained = ["popularity", "svd", "teacher-float16", "teacher-int8"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that has been run."""
    folder = tmp_path_factory.mktemp("evidence")
    (folder / "plan.toml").write_text(PLAN)
    (folder / "readings").mkdir()
    for name, text in {"introduction": "How it was done.", "toy-bprmf": "What it says.", "conclusion": "So."}.items():
        (folder / "readings" / f"{name}.md").write_text(text)
    data = synthesize(SyntheticOptions(num_users=60, num_items=50, num_clusters=6, mean_interactions=12))
    pairs = (data.train + data.validation + data.test).tocoo()
    lines = [f"{user},{item}" for user, item in zip(pairs.row, pairs.col, strict=True)]
    (folder / "toy.csv").write_text("\n".join(["user_id,item_id", *lines]))
    assert run(folder) == 0
    return folder


def run(folder: Path, *more: str) -> int:
    places = ["--plan", "plan.toml", "--work", "work", "--results", "results", "--out", "RESULTS.md"]
    words = [str(folder / word) if word in {"plan.toml", "work", "results", "RESULTS.md"} else word for word in places]
    return lowpass.main(["results", *words, "--sources", str(folder), "--jobs", "2", *more])


def plan_of(folder: Path) -> Plan:
    return load_plan(folder / "plan.toml")


def test_every_cell_is_there_once_with_its_settings_curve_and_cost(folder: Path) -> None:
    names = sorted(str(path.relative_to(folder / "results")) for path in (folder / "results").rglob("*.json"))
    plan = plan_of(folder)
    winner = winning_trial(plan.studies[0], "best", 4, 2, folder / "results")
    assert names == sorted(
        f"toy/bprmf/{name}.json"
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
    content = read_cell(Cell(plan.studies[0], "best", 4, 1, 0), folder / "results")
    assert content is not None
    assert content["config"]["method_settings"]["ce"]["num_top"] == 9
    assert (content["config"]["start"], content["config"]["training"]["weight_decay"]) == ("svd", 1e-4)
    assert "teacher" not in content["config"], "no path of the machine it ran on"
    assert content["curve"]["epoch"] == [2.0, 4.0]
    assert content["metrics"]["training"]["peak_memory_bytes"] > 10**7
    assert content["int8"]["test"]["num_users"] == content["metrics"]["test"]["num_users"]


def test_a_cell_that_is_there_is_not_run_again_and_only_picks_cells(folder: Path) -> None:
    path = folder / "results/toy/bprmf/scratch-d4-t0-s7.json"
    before = {file: file.stat().st_mtime_ns for file in (folder / "results").rglob("*.json")}
    path.unlink()
    assert run(folder, "--only", "toy/*/best*") == 0
    assert not path.exists()
    assert run(folder, "--only", "toy/*/scratch*") == 0
    assert path.exists()
    after = {file: file.stat().st_mtime_ns for file in (folder / "results").rglob("*.json")}
    assert {file for file in before if before[file] != after[file]} == {path}


def test_where_only_the_cells_are_left_the_teacher_is_trained_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("plan.toml", "toy.csv"):
        shutil.copy(folder / name, tmp_path / name)
    shutil.copytree(folder / "results", tmp_path / "results")
    shutil.copytree(folder / "readings", tmp_path / "readings")
    teacher, student = (tmp_path / f"results/toy/bprmf/{name}.json" for name in ("teacher", "scratch-d4-t0-s7"))
    recorded, wanted = teacher.read_bytes(), json.loads(student.read_bytes())
    student.unlink()
    assert run(tmp_path) == 0
    assert json.loads(student.read_bytes())["config"] == wanted["config"], "of the same teacher, to the last bit"
    assert teacher.read_bytes() == recorded
    student.unlink()
    other = json.loads(recorded)
    other["metrics"]["test"]["Recall@20"] += 1e-4
    teacher.write_text(json.dumps(other))
    assert run(tmp_path) == 0, "another processor rounds otherwise"
    student.unlink()
    other["metrics"]["test"]["Recall@20"] += 1e-3
    teacher.write_text(json.dumps(other))
    assert run(tmp_path) == 2
    assert "teacher: its test Recall@20 is" in capsys.readouterr().err
    assert not student.exists()


def test_missing_cells_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--list") == 0
    assert capsys.readouterr().out == "13 of 13 cells are there\n"
    hidden = folder / "results/toy/bprmf/svd-d4.json"
    content = hidden.read_bytes()
    hidden.unlink()
    try:
        assert run(folder, "--list", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"cells": 13, "missing": ["toy/bprmf/svd-d4"]}
    finally:
        hidden.write_bytes(content)


def test_results_hold_tables_spread_and_reading(folder: Path) -> None:
    text = (folder / "RESULTS.md").read_text()
    assert text.startswith("# Results\n\nHow it was done.\n\n| study |")
    assert "\n\n## toy/bprmf\n" in text
    assert text.endswith("What it says.\n\nSo.\n")
    rows = {line.split(" | ")[0].strip("| *"): line.split(" | ") for line in text.splitlines() if " | " in line}
    assert {"teacher", "popularity", "svd", "teacher-float16", "teacher-int8", "scratch", "best"} <= set(rows)
    assert " ± " in next(line for line in text.splitlines() if line.startswith("| scratch | 4 | 16 | 2 |"))


def content(validation: float, test: float, **more: Any) -> dict[str, Any]:
    metrics = {
        "validation_all_users": {"Recall@20": validation},
        "test_all_users": {"Recall@20": test, "NDCG@20": test / 2},
        "training": {"best_epoch": 4, "seconds": 9, "processor_seconds": 20.0, "peak_memory_bytes": 2**30},
    }
    curve = {"Recall@20": [0.1, validation], "processor_seconds": [9.0, 20.0], "seconds": [9.0, 20.0]}
    config = {"dim": 12, "training": {"learning_rate": 0.01, "weight_decay": 0.001, "patience": 6}}
    return {"config": config, "metrics": metrics, "curve": curve, **more}


def test_a_table_says_what_its_cells_say(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    plan = load_plan(tmp_path / "plan.toml")
    study = plan.studies[0]

    write_cell(Cell(study, "teacher"), tmp_path, content(0.5, 0.4))
    for trial, validation in ((0, 0.30), (1, 0.35)):
        write_cell(
            Cell(study, "best", 4, trial, 0), tmp_path, content(validation, 0.2, int8=content(0, 0.19)["metrics"])
        )
    assert winning_trial(study, "scratch", 4, 1, tmp_path) is None
    write_cell(Cell(study, "best", 4, 1, 7), tmp_path, content(0.37, 0.3, int8=content(0, 0.29)["metrics"]))
    text = render_study(plan, study, tmp_path)
    assert (
        "| best | 4 | 16 | 2 | 0.3600 ± 0.0141 | 0.2500 ± 0.0707 | 0.1250 ± 0.0354 | 62.5% | 0.2400 "
        "| 0.1000 | 0.3600 | 0.3600 | 4 | 20 | 1024 |"
    ) in text
    assert "| best | 4 | ce.num_top 9, weight_decay 0.0001 | 0.3500 | 0.2000 | 20 | ✓ |" in text
    assert "scratch" not in text, "what has not been run is left out"
    assert "| toy/bprmf | 12 | 0.4000 | 4 | – | – | 62.5% ± 17.7% |" in render_summary(plan, tmp_path)


def test_the_summary_ends_with_means_over_the_studies_that_all_have(tmp_path: Path) -> None:
    first = PLAN.index("[[study]]")
    other = PLAN[first:].replace('data = "toy"', 'data = "other"')
    text = PLAN + other.replace('"popularity", ', "")
    (tmp_path / "plan.toml").write_text(text.replace("[data]", '[data]\nother = "toy.csv --name other"'))
    plan = load_plan(tmp_path / "plan.toml")

    for study, share in zip(plan.studies, (0.5, 0.9), strict=True):
        write_cell(Cell(study, "teacher"), tmp_path, content(0.2, 0.4))
        for trial in (0, 1):
            write_cell(Cell(study, "best", 4, trial, 0), tmp_path, content(0.2, 0.4 * share))
    write_cell(Cell(plan.studies[0], "svd", 4), tmp_path, content(0.1, 0.1))
    lines = render_summary(plan, tmp_path).splitlines()
    assert lines[-2:] == ["| all, test |  |  |  | – | – | 70.0% |", "| all, validation |  |  |  | – | – | 100.0% |"]


def test_options_of_a_trial_win_over_the_studys_and_the_plans(tmp_path: Path) -> None:
    text = PLAN.replace("\ndim = 4", "\ndim = 4\ntraining = { epochs = 9, weight_decay = 0.5 }\ntrials = 1")
    (tmp_path / "plan.toml").write_text(text)
    plan = load_plan(tmp_path / "plan.toml")
    first = job_of(plan, Cell(plan.studies[0], "best", 4, 0, 3)).options
    second = job_of(plan, Cell(plan.studies[0], "best", 4, 1, 3)).options
    assert (first.epochs, first.patience, first.weight_decay, first.seed) == (9, 4, 0.5, 3)
    assert second.weight_decay == 1e-4
    assert first.learning_rate == 5e-3, "the method's own default"


def test_every_job_of_our_own_plan_can_be_built_and_budgets_are_equal() -> None:
    plan = load_plan(Path(__file__).resolve().parents[2] / "results" / "plan.toml")
    assert plan.studies
    for study in plan.studies:
        counts: dict[bool, set[int]] = {True: set(), False: set()}
        for dim, names in study.contestants_by_dim.items():
            assert len(set(names)) == len(names)
            for name in names:
                count = num_trials(plan, study, name)
                counts[plan.contestants[name].every_trial].add(count)
                jobs = [job_of(plan, Cell(study, name, dim, trial, 0)) for trial in range(count)]
                assert all(job.options.patience >= plan.training["patience"] for job in jobs)
                assert len({repr(job) for job in jobs}) == count, f"{name} tries something twice"
        assert all(len(found) <= 1 for found in counts.values()), f"{study.name}: budgets differ"
        assert max(counts[True]) >= max(counts[False]), "those that distillation is held against have as many trials"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[data]", "[data", "unreadable plan"),
        ('data = "toy"', 'data = "nothing"', "'nothing' is not in data; it has toy"),
        ('contestants = ["scratch", "best"]', 'contestants = ["scratch", "worst"]', "'worst' is not in contestants"),
        ('summary = ["svd"', 'summary = ["worst"', "'worst' is not in untrained or contestants"),
        ('"svd", "teacher-float16"', '"magic"', "'magic' is not in untrained"),
        ('method = "freqd+ce"', 'method = "freqd+magic"', "'magic' is not one of"),
        ("dim = 4", 'dim = "four"', r"0\.dim"),
        ("\ndim = 4", "\nsize = 4", r"0\.size"),
    ],
)
def test_a_wrong_plan_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace(old, new))
    with pytest.raises(SettingError, match=message):
        load_plan(tmp_path / "plan.toml")
