"""Training through the command line, on invented data: train → distill."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import distill.methods.candidates
import lowpass
from distill.data.interactions import load_interactions, save_interactions
from distill.evaluation.protocol import Protocol, evaluate
from distill.report.material import read_histories
from distill.run import open_run
from tests.distill.commands.words import QUICK, distill_words, read_error, read_json
from tests.distill.toy import build_interactions


def test_train_and_distill_leave_runs_with_a_curve(road: Path) -> None:
    teacher, student = open_run(road / "teacher"), open_run(road / "student")
    assert (teacher.dim, teacher.config["method"], teacher.config["teacher"]) == (12, "scratch", None)
    assert (student.dim, student.config["method"], student.config["teacher"]) == (4, "freqd", str(teacher.path))
    for run in (teacher, student):
        assert {path.name for path in run.path.iterdir()} == {
            "config.json", "embeddings.safetensors", "metrics.json", "history.csv", "curve.png",
            "users.parquet", "items.parquet",
        }  # fmt: skip


def test_options_reach_the_method(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--variant", "cooccurrence", "--projector", "mlp", "--loss", "l2", "--coefficients", "1,-0.5,0.25"]
    options += ["--order", "filter-first", "--neighbors", "3", "--keep-prob", "0.8", "--weight", "0.1", "--reference"]
    assert lowpass.main(distill_words(road, tmp_path / "run", *options, "--json")) == 0
    answer = read_json(capsys)
    assert answer["run"] == str(tmp_path / "run")
    assert answer["test"] == open_run(tmp_path / "run").metrics["test"]
    recorded = open_run(tmp_path / "run").config["method_settings"]
    wanted = {
        "distillation_weight": 0.1, "projector": "mlp", "loss": "l2", "sides": "both", "variant": "cooccurrence",
        "filter": "linear", "alpha": None, "coefficients": [1.0, -0.5, 0.25], "order": "filter-first",
        "num_neighbors": 3, "keep_prob": 0.8, "reference": True,
    }  # fmt: skip
    assert {name: recorded[name] for name in wanted} == wanted


def test_large_data_choose_where_to_start_and_how_long_to_train(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill.methods.candidates, "WHOLE_PAIRS", 100)
    words = ["distill", str(road / "data"), "--teacher", str(road / "teacher"), "--dim", "4", "--epochs", "2"]
    assert lowpass.main([*words, "--out", str(tmp_path / "run")]) == 0
    assert (
        "many users and items: start svd, eval_every 1, schedule cosine, learning_rate 0.02\n"
        in capsys.readouterr().out
    )
    config = open_run(tmp_path / "run").config
    assert (config["start"], config["training"]["epochs"], config["training"]["schedule"]) == ("svd", 2, "cosine")


def test_train_reports_quality_in_words(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["train", str(road / "data"), "--out", str(tmp_path / "run"), "--dim", "4", *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"run {tmp_path / 'run'}: best epoch ")
    assert [line.split()[0] for line in lines[1:]] == ["validation", "test", "test_all_users"]
    assert "full ranking, test items relevant, train items masked, mean over all users" in lines[3]


def test_tensorboard_gets_event_files(road: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    events = tmp_path / "events"
    arguments = ["train", str(road / "data"), "--out", str(tmp_path / "run"), "--dim", "4", *QUICK]
    assert lowpass.main([*arguments, "--tensorboard", str(events)]) == 0
    assert [path.stat().st_size > 100 for path in events.iterdir()] == [True]


def test_embeddings_from_outside_make_a_run_that_distill_accepts(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = open_run(road / "teacher")
    np.save(tmp_path / "users.npy", teacher.user_embeddings)
    np.save(tmp_path / "items.npy", teacher.item_embeddings)
    files = [str(tmp_path / name) for name in ("users.npy", "items.npy")]
    arguments = ["train", str(road / "data"), "--from-embeddings", *files, "--name", "mine"]
    assert lowpass.main([*arguments, "--out", str(tmp_path / "teacher"), "--json"]) == 0
    assert read_json(capsys)["test"] == teacher.metrics["test"]
    assert open_run(tmp_path / "teacher").config["backbone"] == "mine"
    assert lowpass.main([*arguments, "--out", str(tmp_path / "again")]) == 0
    assert f"Recall@20 {teacher.metrics['test']['Recall@20']:.4f}" in capsys.readouterr().out
    student = distill_words(road, tmp_path / "student")
    student[student.index("--teacher") + 1] = str(tmp_path / "teacher")
    assert lowpass.main(student) == 0
    found, expected = (open_run(path / "student").item_embeddings for path in (tmp_path, road))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_embeddings_from_outside_work_on_data_without_a_test_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_interactions(build_interactions((3, 21), [(0, 0), (1, 1), (2, 2)]), tmp_path / "data")
    for name, size in (("users", 3), ("items", 21)):
        np.save(tmp_path / f"{name}.npy", np.ones((size, 2)))
    files = [str(tmp_path / name) for name in ("users.npy", "items.npy")]
    arguments = ["train", str(tmp_path / "data"), "--from-embeddings", *files]
    assert lowpass.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "users: order of rows taken on trust, since users.npy has no ids",
        "items: order of rows taken on trust, since items.npy has no ids",
        f"run {tmp_path / 'run'}: 3 users, 21 items",
    ]
    assert lowpass.main(["evaluate", str(tmp_path / "run"), "--plot", str(tmp_path / "p.png")]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from-embeddings", "u.npy", "i.npy", "--epochs", "3"], "--epochs means nothing with --from-embeddings"),
        (["--from-embeddings", "u.npy", "i.npy", "--dim", "64"], "--dim means nothing with --from-embeddings"),
        (["--from-embeddings", "u.npy", "i.npy", "--resume"], "--resume means nothing with --from-embeddings"),
        (["--name", "mine"], "--name is for --from-embeddings"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert lowpass.main(["train", str(road / "data"), "--out", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{road}/nowhere", "--out", "{new}"], "no dataset.json there"),
        (["train", "{road}/data", "--out", "{road}/teacher"], "a finished run is there"),
        (["train", "{road}/data", "--out", "{new}", "--resume"], "no checkpoint to resume from"),
        (["train", "{road}/data", "--out", "{new}", "--lr", "0"], "learning_rate"),
        (["train", "{road}/data", "--out", "{new}", "--device", "abacus"], "'abacus' is not a device"),
        (["distill", "{road}/data", "--teacher", "{road}/data", "--out", "{new}"], "no finished run there"),
        (["distill", "{road}/data", "--teacher", "{road}/teacher", "--out", "{new}", "--method", "freqd",
          "--alpha", "2"], "alpha: 2.0 is outside [0, 1]"),
    ],
)  # fmt: skip
def test_bad_input_is_the_users_fault_in_one_line(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert lowpass.main([part.format(road=road, new=tmp_path / "new") for part in arguments]) == 2
    assert message in read_error(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "data"],
        ["train", "data", "--out", "x", "--dim", "0"],
        ["distill", "data", "--teacher", "t", "--out", "x", "--method", "scratch"],
        ["distill", "data", "--teacher", "t", "--out", "x", "--set", "alpha"],
    ],
)
def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert lowpass.main(arguments) == 2
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--coefficients", "1,b"], "coefficients: '1,b' does not fit 'freqd'"),
        (["--method", "ce", "--projector", "mlp"], "projector: 'ce' has no such setting"),
        (["--method", "freqd+nothing"], "method: 'nothing' is not one of"),
        (["--method", "ce", "--set", "num-top=0"], "num_top: 0 is below 1"),
        (["--max-seconds", "0"], "max_seconds: 0.0 is not above 0"),
        (["--seed", "-1"], "seed: -1 is negative; give 0 or more"),
        (["--seed", "1" * 23], "seed: 11111111111111111111111 is beyond"),
        (["--method", "rcekd", "--set", "sampling_temperature=nan"], "sampling_temperature: nan is not finite"),
        (["--start", "nowhere"], "nowhere: no finished run there"),
        (["--continue-from", "nowhere"], "nowhere: no finished run there"),
        (["--continue-from", "nowhere", "--start", "svd"], "start: 'svd' and continue_from both say"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    assert lowpass.main(distill_words(road, tmp_path / "run", *options)) == 2
    assert named in read_error(capsys)


def test_stages_start_a_composition_from_a_run(road: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert lowpass.main(distill_words(road, first, "--method", "ce", "--start", "svd", "--set", "num-top=5")) == 0
    options = ["--method", "freqd+ce", "--start", str(first), "--set", "ce.num-top=7", "--max-seconds", "0.001"]
    assert lowpass.main(distill_words(road, second, *options)) == 0
    one, two = open_run(first), open_run(second)
    assert (one.config["start"], one.config["method_settings"]["num_top"]) == ("svd", 5)
    assert (two.config["start"], two.config["method_settings"]["ce"]["num_top"]) == (str(first), 7)
    assert two.config["training"]["batch_size"] == 256
    assert two.metrics["training"]["epochs"] == 2, "out of time after the first evaluation"


@pytest.fixture
def tomorrow(road: Path, tmp_path: Path) -> Path:
    """The road's data in another order of users, without its first one, split by time as far as anybody knows."""
    data = load_interactions(road / "data")
    order = np.random.default_rng(5).permutation(data.num_users)
    order = order[order != 0]
    splits = {name: getattr(data, name)[order] for name in ("train", "validation", "test")}
    settings = {**data.settings, "split": "temporal"}
    later = replace(data, name="later", user_ids=data.user_ids[order], settings=settings, **splits)
    save_interactions(later, tmp_path / "tomorrow")
    return tmp_path / "tomorrow"


def test_a_teacher_and_a_student_go_on_from_yesterdays(
    road: Path, tomorrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--epochs", "2", "--eval-every", "2", "--batch-size", "256"]
    words = ["--continue-from", str(road / "teacher"), "--dim", "12", "--out", str(tmp_path / "teacher"), *quick]
    assert lowpass.main(["train", str(tomorrow), *words]) == 0
    said = capsys.readouterr()
    assert f"continued from {road / 'teacher'}: 59 users kept, 0 new, 50 items kept, 0 new\n" in said.out
    assert "drift: overlap@5 with yesterday's lists " in said.out
    assert "users: 1.7% lost, 0.0% new; items: 0.0% lost, 0.0% new" in said.out
    assert said.err == ""
    words = ["--teacher", str(tmp_path / "teacher"), "--continue-from", str(road / "student"), "--method", "freqd"]
    words += ["--dim", "4", "--out", str(tmp_path / "student"), *quick]
    assert lowpass.main(["distill", str(tomorrow), *words, "--json"]) == 0
    answer = read_json(capsys)
    assert answer["continued"]["users_kept"] == 59
    assert 0.5 < answer["drift"]["overlap"] <= 1
    run = open_run(tmp_path / "student")
    assert run.config["continue_from"] == str(road / "student")
    assert run.metrics["drift"] == answer["drift"]
    assert run.config["training"]["schedule"] == "cosine"


def test_a_random_split_and_lists_that_have_nothing_in_common_are_warned_of(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["--epochs", "60", "--eval-every", "30", "--patience", "60", "--batch-size", "64", "--lr", "2"]
    words = ["--continue-from", str(road / "teacher"), "--dim", "12", "--out", str(tmp_path / "teacher"), *wild]
    assert lowpass.main(["train", str(road / "data"), *words]) == 0
    said = capsys.readouterr().err
    assert "warning: the data is split at random, so what is held out today may have been learned yesterday" in said
    assert "warning: lists share less than" in said


def test_yesterdays_run_of_another_kind_is_refused(
    road: Path, tomorrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(tomorrow), "--out", str(tmp_path / "run"), "--dim", "12"]
    assert lowpass.main([*words, "--continue-from", str(road / "student")]) == 2
    assert "its method is 'freqd' and not 'scratch'; give --method freqd" in read_error(capsys)
    assert lowpass.main([*words, "--backbone", "lightgcn", "--continue-from", str(road / "teacher")]) == 2
    assert "'lightgcn' makes its embeddings of a table" in read_error(capsys)
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_gets_its_ids_by_saving_an_evaluation(
    road: Path, tomorrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(road / "teacher", earlier)
    (earlier / "users.parquet").unlink()
    words = ["train", str(tomorrow), "--out", str(tmp_path / "run"), "--dim", "12", *QUICK]
    words += ["--continue-from", str(earlier)]
    assert lowpass.main(words) == 2
    assert "users.parquet: missing, so nobody knows whose rows these are" in read_error(capsys)
    assert lowpass.main(["evaluate", str(earlier), "--data", str(road / "data"), "--save"]) == 0
    assert lowpass.main(words) == 0


def test_the_default_is_the_recipe_that_the_evidence_finds_best(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--set", "num-top=5", "--backbone", "lpmf", "--backbone-set", "alpha=0.2"]
    words = ["distill", str(road / "data"), "--teacher", str(road / "teacher"), "--out", str(tmp_path / "run")]
    assert lowpass.main([*words, "--dim", "4", *QUICK, *options]) == 0
    config = open_run(tmp_path / "run").config
    assert (config["backbone"], config["backbone_settings"]) == ("lpmf", {"alpha": 0.2})
    assert config["method"] == "ce+rcekd"
    parts = config["method_settings"]
    assert (parts["ce"]["num_top"], parts["rcekd"]["num_top"], parts["ce"]["hide_train"]) == (5, 5, True)
    assert (parts["ce"]["distillation_weight"], parts["rcekd"]["distillation_weight"]) == (1.0, 1.0)
    capsys.readouterr()
    assert lowpass.main(["distill", "--help"]) == 0
    assert "[default: ce+rcekd]" in " ".join(capsys.readouterr().out.split())


def test_early_stop_and_reports_go_by_the_asked_number_of_users(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lowpass.main(distill_words(road, tmp_path / "run", "--eval-users", "9")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("quality is measured on 9 of ")
    assert "(standard error 0." in lines[-1]
    run, data = open_run(tmp_path / "run"), load_interactions(road / "data")
    assert run.config["training"]["eval_users"] == 9
    assert "eval_users" not in open_run(road / "student").config["training"], "the default leaves no trace"
    protocol = Protocol(split="validation", average="all", eval_users=9)
    report = evaluate(run.user_embeddings, run.item_embeddings, data, protocol)
    best = max(read_histories([run])[0][run.path].values)
    assert report.metrics["Recall@20"] <= best + 1e-12
    assert run.metrics["validation_all_users"] == report.as_dict()
