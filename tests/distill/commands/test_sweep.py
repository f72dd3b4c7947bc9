from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lowpass
from distill.data.interactions import save_interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.run import open_run
from tests.distill.toy import build_checkerboard

QUICK = ("epochs=2", "eval_every=1", "patience=2", "batch_size=256")


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a teacher, and a sweep of two trials."""
    folder = tmp_path_factory.mktemp("road")
    data = synthesize(SyntheticOptions(num_users=60, num_items=50, num_clusters=6, mean_interactions=10))
    save_interactions(data, folder / "data")
    save_interactions(build_checkerboard(), folder / "other")
    train = ["train", str(folder / "data"), "--out", str(folder / "teacher"), "--dim", "12", "--epochs", "2"]
    assert lowpass.main([*train, "--eval-every", "1"]) == 0
    assert lowpass.main(arguments(folder, "--reference", str(folder / "teacher"))) == 0
    return folder


def arguments(road: Path, *more: str) -> list[str]:
    words = ["sweep", str(road / "data"), "--teacher", str(road / "teacher"), "--out", str(road / "sweep")]
    words += ["--range", "alpha=0:1", "--range", "learning_rate=log:0.001:0.1", "--choice", "dim=3,4"]
    words += ["--method", "freqd", "--backbone", "bprmf", "--trials", "2", "--jobs", "2"]
    for pair in QUICK:
        words += ["--set", pair]
    return [*words, *more]


def read_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def read_summary(road: Path) -> Any:
    return json.loads((road / "sweep" / "sweep.json").read_text())


def test_a_sweep_leaves_runs_that_other_commands_read(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.name for path in (road / "sweep").iterdir()} == {
        "journal.log", "lock", "sweep.json", "sweep.png", "trials",
    }  # fmt: skip
    assert (road / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    runs = [str(road / "sweep" / "trials" / name) for name in ("000", "001")]
    for path, trial in zip(runs, read_summary(road)["trials"], strict=True):
        run = open_run(Path(path))
        assert run.dim == int(trial["settings"]["dim"])
        assert run.config["method_settings"]["alpha"] == trial["settings"]["alpha"]
        assert run.config["training"]["learning_rate"] == trial["settings"]["learning_rate"]
        assert run.metrics["validation"]["Recall@20"] == trial["value"]
    assert lowpass.main(["evaluate", *runs]) == 0
    assert capsys.readouterr().out.count("freqd bipartite") == 2


def test_the_printed_command_trains_the_best_trial_again(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = read_summary(road)
    words = shlex.split(summary["command"])
    assert words[0] == "lowpass"
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert lowpass.main(words[1:]) == 0
    best, again = open_run(Path(summary["best"]["run"])), open_run(tmp_path / "again")
    assert best.config == again.config
    np.testing.assert_array_equal(best.item_embeddings, again.item_embeddings)


def test_repeating_a_finished_sweep_prints_it_again(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(arguments(road, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == read_summary(road)
    assert lowpass.main(arguments(road)) == 0
    printed = capsys.readouterr().out
    header = [cell.strip() for cell in printed.splitlines()[0].strip("|").split("|")]
    assert header == ["trial", "alpha", "learning_rate", "dim", "validation Recall@20", "best epoch", "training s"]
    assert read_summary(road)["command"] in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--range", "beta=0:1"), "beta: 'freqd' has no such setting; it has dim, start, continue_from, epochs"),
        (("--set", "alpha=0.5"), "alpha: is varied already; do not fix it by --set"),
        (("--range", "distillation_weight=-1:1"), "distillation_weight: -1.0 is negative"),
        (("--method", "nonsense"), "method: 'nonsense' is not one of"),
        (("--backbone-set", "nonsense=1"), "nonsense: 'bprmf' has no such setting; it has none"),
        (("--seed", "5"), "holds a sweep with another seed"),
    ],
)
def test_what_cannot_be_swept_is_refused(
    road: Path, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lowpass.main(arguments(road, *more)) == 2
    assert message in read_error(capsys)


def test_teachers_and_references_are_checked_before_anything_is_trained(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", str(road / "other"), "--out", str(tmp_path / "sweep"), "--choice", "dim=3,4"]
    assert lowpass.main(words) == 2
    assert "teacher: method 'ce+rcekd' distills from one; give --teacher RUN" in read_error(capsys)
    assert lowpass.main([*words, "--teacher", str(road / "teacher")]) == 2
    assert "data.fingerprint is not that of data set" in read_error(capsys)
    bare = [*words, "--method", "scratch", "--reference", str(road / "teacher")]
    assert lowpass.main(bare) == 2
    assert "data.fingerprint is not that of data set" in read_error(capsys)
    assert not (tmp_path / "sweep").exists()


def test_trials_are_measured_on_the_asked_number_of_users(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(road, "--eval-users", "9")
    words[words.index("--out") + 1] = str(tmp_path / "sweep")
    assert lowpass.main(words) == 0
    assert capsys.readouterr().out.startswith("quality is measured on 9 of ")
    summary = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert "mean over 9 of " in summary["objective"]
    assert "--eval-users 9" in summary["command"]
    run = open_run(tmp_path / "sweep" / "trials" / "000")
    assert run.metrics["validation"]["num_users"] == 9
    assert lowpass.main([*words[:-1], "8"]) == 2
    assert "another eval_users" in capsys.readouterr().err
