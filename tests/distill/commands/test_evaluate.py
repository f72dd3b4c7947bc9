"""The command that reports quality: one run, several side by side, baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lowpass
from distill.baselines import BASELINES, tune
from distill.data.interactions import load_interactions, save_interactions
from distill.errors import SettingError
from distill.evaluation.metrics import METRICS
from distill.run import Run, open_run
from tests.distill.commands.words import distill_words, read_error, read_json
from tests.distill.toy import build_interactions, build_random

REPORTS = {
    "validation": ("--split", "validation"),
    "validation_all_users": ("--split", "validation", "--average", "all"),
    "test": (),
    "test_all_users": ("--average", "all"),
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_evaluate_answers_as_json_under_the_asked_convention(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(road / "student")
    arguments = ["evaluate", str(road / "student"), "--data", str(road / "data"), "--json"]
    assert lowpass.main(arguments) == 0
    assert read_json(capsys) == {"run": str(road / "student"), **run.metrics["test"]}
    assert lowpass.main([*arguments, "--average", "all", "--split", "validation", "-k", "10", "-k", "20"]) == 0
    assert read_json(capsys) == {"run": str(road / "student"), **run.metrics["validation_all_users"]}
    assert lowpass.main(arguments[:-1]) == 0
    assert f"Recall@20      {run.metrics['test']['Recall@20']:.4f}" in capsys.readouterr().out


def test_saved_reports_never_replace_those_of_another_convention(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lowpass.main(distill_words(road, tmp_path / "run")) == 0
    before = open_run(tmp_path / "run").metrics
    arguments = ["evaluate", str(tmp_path / "run"), "--data", str(road / "data"), "--save"]
    assert lowpass.main([*arguments, "-k", "5"]) == 0
    assert lowpass.main([*arguments, "--mask", "train+validation", "--average", "all"]) == 0
    after = open_run(tmp_path / "run").metrics
    assert {name: after["test"][name] for name in before["test"]} == before["test"]
    assert after["test"]["Recall@5"] <= after["test"]["Recall@10"]
    assert after["test_all_users"] == before["test_all_users"]
    assert "train+validation items masked" in after["test_validation_masked_all_users"]["convention"]
    assert lowpass.main(["evaluate", str(tmp_path / "run")]) == 0


def test_stored_reports_of_several_runs_become_a_table_and_a_plot(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lowpass.main(distill_words(road, tmp_path / "seed-1", "--seed", "1")) == 0
    capsys.readouterr()
    runs = [str(road / "teacher"), str(road / "student"), str(tmp_path / "seed-1")]
    assert lowpass.main(["evaluate", *runs, "--plot", str(tmp_path / "curves.png")]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].split()[0] for line in table[2:]] == ["scratch", "freqd"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert lowpass.main(["evaluate", *runs, "--average", "all", "--json"]) == 0
    teacher, student = read_json(capsys)["runs"]
    values = [open_run(Path(path)).metrics["test_all_users"]["Recall@20"] for path in runs]
    assert teacher["test Recall@20"] == {"mean": values[0], "std": 0.0}
    assert student["test Recall@20"] == pytest.approx({"mean": np.mean(values[1:]), "std": np.std(values[1:], ddof=1)})


@pytest.fixture(scope="module")
def seeds(road: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A teacher, and a student of it under two seeds."""
    other = tmp_path_factory.mktemp("seeds") / "seed-1"
    assert lowpass.main(distill_words(road, other, "--seed", "1")) == 0
    return [open_run(path) for path in (road / "teacher", road / "student", other)]


def test_several_runs_are_ranked_anew_and_held_against_their_teacher(
    road: Path, seeds: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", *(str(run.path) for run in seeds), "--data", str(road / "data")]
    capsys.readouterr()
    assert lowpass.main([*words, "--json"]) == 0
    found = read_json(capsys)
    assert found["convention"] == seeds[0].metrics["test"]["convention"]
    teacher, student = found["models"]
    recall = [run.metrics["test"]["Recall@20"] for run in seeds]
    assert teacher["Recall@20"] == {"mean": recall[0], "std": 0.0}
    assert student["Recall@20"] == pytest.approx({"mean": np.mean(recall[1:]), "std": np.std(recall[1:], ddof=1)})
    assert student["kept"] == pytest.approx(np.mean(recall[1:]) / recall[0])
    assert (teacher["kept"], student["seeds"], student["runs"]) == (None, [0, 1], [str(run.path) for run in seeds[1:]])
    assert lowpass.main([*words, "-k", "5", "--mask", "train+validation"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert cells(table[0]) == ["model", "d", "seeds", "Recall@5", "NDCG@5", "Recall@5 kept"]
    assert [cells(line)[1:3] for line in table[2:4]] == [["12", "1"], ["4", "2"]]
    assert " ± " in table[3]
    assert cells(table[3])[-1].endswith("%")
    assert "train+validation items masked" in table[-1]


def test_several_reports_are_saved_under_their_convention(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    for seed, path in enumerate(runs):
        assert lowpass.main(distill_words(road, path, "--seed", str(seed))) == 0
    words = ["evaluate", *map(str, runs), "--data", str(road / "data"), "--save", "-k", "3", "-k", "20", "--json"]
    capsys.readouterr()
    assert lowpass.main(words) == 0
    (row,) = read_json(capsys)["models"]
    saved = [open_run(path).metrics["test"]["Recall@3"] for path in runs]
    assert row["Recall@3"]["mean"] == pytest.approx(np.mean(saved))


@pytest.fixture
def directory(tmp_path: Path, rng: np.random.Generator) -> Path:
    save_interactions(build_random(rng), tmp_path / "data")
    return tmp_path / "data"


def test_every_baseline_is_reported_like_a_run(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    for name, protocol in REPORTS.items():
        words = ["evaluate", "--baselines", "--data", str(directory), *protocol, "-k", "10", "-k", "20", "--json"]
        assert lowpass.main(words) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["data"] == "toy"
        assert list(answer["baselines"]) == [row["label"] for row in answer["models"]] == list(BASELINES)
        found[name] = answer["baselines"]
    for name in BASELINES:
        test, test_all_users = found["test"][name], found["test_all_users"][name]
        assert list(test)[:4] == ["settings", "bytes", "seconds", "tuning"]
        assert test["convention"].endswith("mean over users with relevant items")
        assert test_all_users["convention"].endswith("mean over all users")
        shrunk = test["Recall@20"] * test["num_users"] / 30
        assert test_all_users["Recall@20"] == pytest.approx(shrunk, abs=1e-6)
        best = max(point["NDCG@10"] for point in test["tuning"]["tried"])
        assert found["validation"][name]["NDCG@10"] == pytest.approx(best, abs=1e-6)


def test_baselines_stand_below_the_runs_for_people(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(road / "teacher"), str(road / "student"), "--data", str(road / "data"), "--baselines"]
    assert lowpass.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cells(line)[0].split()[0] for line in lines[2:10]] == ["scratch", "freqd", *BASELINES]
    assert [cells(line)[-1] for line in lines[4:10]] == ["–"] * 6
    assert lines[10] == ""
    assert lines[12].startswith("itemknn, num_neighbors ")
    assert "(best of 18)" in lines[12]
    assert lines[-1].startswith("full ranking, test items relevant")


def test_ease_without_memory_is_left_out(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--baselines", "--data", str(directory), "--ease-max-bytes", "100"]
    assert lowpass.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cells(line)[0] for line in lines[2:7]] == ["popularity", "itemknn", "gfcf", "turbocf", "ials"]
    left_out = "ease: left out (ease: inverting 25 × 25 needs 7,500 bytes, and 100 are allowed"
    assert any(line.startswith(left_out) for line in lines)
    assert lowpass.main([*words, "--json"]) == 0
    assert "ease: inverting" in read_json(capsys)["baselines"]["ease"]["refused"]
    with pytest.raises(SettingError, match=r"^ease: inverting") as caught:
        tune("ease", load_interactions(directory), ease_max_bytes=100)
    assert caught.value.exit_code == 2


def test_data_without_validation_is_the_users_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = build_interactions((2, 25), train=[(0, 0), (1, 1)], test=[(0, 1)])
    save_interactions(data, tmp_path / "data")
    assert lowpass.main(["evaluate", "--baselines", "--data", str(tmp_path / "data")]) == 2
    assert "no validation interactions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{road}/student", "--data", "{road}/data", "-k", "51"],
            "51 exceeds the 50 items of data set 'synthetic'; take data of more items, or with 'lowpass evaluate' a "
            "smaller -k",
        ),
        (
            ["{road}/student", "--data", "{road}/data", "--split=validation", "--mask=train+validation"],
            "hides the very items",
        ),
        (["{road}/data"], "no finished run there"),
        (["{road}/student", "--data", "{other}"], "data.fingerprint is not that of data set"),
        (["--baselines", "--data", "{road}/student"], "no dataset.json there"),
    ],
)
def test_bad_input_is_the_users_fault_in_one_line(
    road: Path, directory: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert lowpass.main(["evaluate", *(part.format(road=road, other=directory) for part in arguments)]) == 2
    assert message in read_error(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing RUN"),
        (["--data", "d"], "Missing RUN"),
        (["--baselines"], "--baselines needs --data"),
        (["run", "--save"], "--save needs --data: without it the reports stored in the runs are compared"),
        (["run", "-k", "5"], "-k needs --data"),
        (["run", "--split", "test"], "--split needs --data"),
        (["--baselines", "--data", "d", "--plot", "p.png"], "--plot draws runs"),
    ],
)
def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert lowpass.main(["evaluate", *arguments]) == 2
    assert f"Error: {message}" in capsys.readouterr().err


def test_a_sample_of_users_is_told_with_its_standard_error(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(road / "student"), "--data", str(road / "data"), "--eval-users", "9"]
    assert lowpass.main([*arguments, "--json"]) == 0
    report = read_json(capsys)
    assert report["num_users"] == 9
    assert set(report["standard_error"]) == {f"{name}@{k}" for name in METRICS for k in (10, 20)}
    assert lowpass.main(arguments) == 0
    said, *lines = capsys.readouterr().out.splitlines()
    assert said.startswith("quality is measured on 9 of ")
    error = report["standard_error"]["Recall@20"]
    assert f"Recall@20      {report['Recall@20']:.4f}  (standard error {error:.4f})" in lines
    assert not any(line.startswith("standard_error") for line in lines)
    assert lowpass.main([arguments[0], str(road / "teacher"), *arguments[1:], "--json"]) == 0
    teacher, student = read_json(capsys)["models"]
    assert student["standard_error"] == report["standard_error"]
    assert student["kept"] == pytest.approx(report["Recall@20"] / teacher["Recall@20"]["mean"])
    assert lowpass.main([arguments[0], str(road / "teacher"), *arguments[1:]]) == 0
    *_, convention, errors = capsys.readouterr().out.splitlines()
    assert "drawn with seed 0" in convention
    assert errors.startswith("standard errors of this sample, at most: Recall@10 0.")
    assert "MRR" not in errors


def test_a_saved_report_takes_the_place_of_one_on_other_users(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lowpass.main(distill_words(road, tmp_path / "run")) == 0
    before = open_run(tmp_path / "run").metrics
    arguments = ["evaluate", str(tmp_path / "run"), "--data", str(road / "data"), "--save"]
    assert lowpass.main([*arguments, "--eval-users", "9", "-k", "5"]) == 0
    assert "'test' was of other users" in capsys.readouterr().err
    sampled = open_run(tmp_path / "run").metrics["test"]
    assert "Recall@5" in sampled
    assert "Recall@20" not in sampled, "that was of other users"
    assert lowpass.main(["evaluate", str(tmp_path / "run"), str(road / "student")]) == 2
    assert "was measured otherwise" in read_error(capsys)
    assert lowpass.main(arguments) == 0
    assert open_run(tmp_path / "run").metrics["test"] == before["test"]


def test_without_data_nobody_is_drawn(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["evaluate", str(road / "student"), "--eval-users", "9"]) == 2
    assert "--eval-users needs --data" in capsys.readouterr().err
