from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

import lowpass
from distill.run import open_run
from tests.distill.distributed.conftest import finish, start_ranks

LENGTH = ("--epochs", "12", "--eval-every", "3", "--patience", "12", "--batch-size", "64", "--checkpoint-seconds", "0")


def student_words(small: Path, out: Path, *more: str) -> list[str]:
    words = ["distill", str(small / "data"), "--teacher", str(small / "teacher"), "--out", str(out), "--dim", "8"]
    return ["lowpass", *words, "--method", "freqd", "--sharded", *LENGTH, *more]


def wait_for_epoch(out: Path, epoch: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        path = out / "checkpoint.json"
        if path.is_file() and json.loads(path.read_text())["progress"]["epoch"] >= epoch:
            return
        time.sleep(0.005)
    raise AssertionError("no checkpoint came")


@pytest.fixture(scope="module")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start_ranks(2, *student_words(small, out)))
    return out


def test_a_killed_rank_is_started_again_and_the_result_is_the_same(
    small: Path, tmp_path: Path, undisturbed: Path
) -> None:
    ranks = start_ranks(2, *student_words(small, tmp_path / "run"), restarts=1)
    wait_for_epoch(tmp_path / "run", 4)
    os.kill(psutil.Process(ranks.pid).children()[1].pid, signal.SIGKILL)
    output = finish(ranks)
    assert "exitcode: -9" in output
    one, other = open_run(undisturbed), open_run(tmp_path / "run")
    assert np.array_equal(one.user_embeddings, other.user_embeddings)
    assert np.array_equal(one.item_embeddings, other.item_embeddings)
    assert one.metrics["test"] == other.metrics["test"]
    assert one.config == other.config


def test_the_run_is_one_that_export_takes_and_nothing_else_is_left(undisturbed: Path, small: Path) -> None:
    assert {path.name for path in undisturbed.iterdir()} == {
        "config.json", "curve.png", "embeddings.safetensors", "history.csv", "metrics.json",
    }  # fmt: skip
    metrics = open_run(undisturbed).metrics
    assert metrics["training"]["ranks"] == 2
    assert {"validation", "test", "validation_all_users", "test_all_users"} <= set(metrics)
    repository = undisturbed.parent / "models"
    words = ["export", str(undisturbed), "--data", str(small / "data"), "--repository", str(repository)]
    assert lowpass.main([*words, "--model", "student"]) == 0
    assert (repository / "student" / "1" / "manifest.json").is_file()


REFUSED = {
    ("--backbone", "lightgcn"): "backbone: 'lightgcn' needs the whole table",
    ("--method", "dcd"): "method: 'dcd' is not sharded",
    ("--start", "svd"): "start: 'svd' is not sharded",
    ("--filter", "quadratic"): "filter: a sharded filter reaches direct neighbours alone",
    ("--variant", "cooccurrence"): "variant: 'cooccurrence' is not sharded",
    ("--keep-prob", "0.5"): "keep_prob: 0.5 is not sharded",
    ("--keep-checkpoints", "2"): "keep_checkpoints: a sharded training keeps no earlier states",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_is_not_sharded_is_refused_by_name(words: tuple[str, str]) -> None:
    from distill.distributed.job import require_supported
    from distill.errors import SettingError
    from distill.training.job import build_job

    names = {"--method": "method", "--backbone": "backbone"}
    given = {word.removeprefix("--").replace("-", "_"): value for word, value in [words] if word not in names}
    job = build_job(
        words[1] if words[0] == "--method" else "freqd",
        {"co_teachers": "none", **given},
        backbone=words[1] if words[0] == "--backbone" else "bprmf",
    )
    with pytest.raises(SettingError, match=f"^{REFUSED[words]}"):
        require_supported(job)


def test_without_torchrun_the_remedy_is_named(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(small / "data"), "--out", str(tmp_path / "run"), "--sharded"]
    assert lowpass.main(words) == 2
    assert "torchrun --nproc-per-node 2 -m lowpass" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_under_torchrun_ranks_that_would_train_alone_are_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a-run")
    words = ["train", str(small / "data"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(lowpass.cli, words)
    assert result.exit_code == 2
    assert "give --sharded" in result.output


def test_what_is_for_sharded_is_refused_without_it(small: Path, tmp_path: Path) -> None:
    words = ["train", str(small / "data"), "--out", str(tmp_path / "run"), "--table-lr", "0.1"]
    result = CliRunner().invoke(lowpass.cli, words)
    assert result.exit_code == 2
    assert "--table-lr is for --sharded" in result.output
