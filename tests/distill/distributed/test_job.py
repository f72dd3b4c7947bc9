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
from tests.distill.distributed.two_ranks import GIVEN

pytestmark = pytest.mark.timeout(900)  # ranks that import torch twice, on a machine that others use


def wait_for_epoch(out: Path, epoch: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        path = out / "checkpoint.json"
        if path.is_file() and json.loads(path.read_text())["progress"]["epoch"] >= epoch:
            return
        time.sleep(0.005)
    raise AssertionError("no checkpoint came")


@pytest.fixture(scope="module")
def disturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks, one of which was killed on the way."""
    out = tmp_path_factory.mktemp("disturbed") / "run"
    words = ["lowpass", "distill", str(small / "data"), "--teacher", str(small / "teacher"), "--out", str(out)]
    settings = [word for name, value in GIVEN.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    ranks = start_ranks(2, *words, "--method", "freqd", "--sharded", "--checkpoint-seconds", "0", *settings, restarts=1)
    wait_for_epoch(out, 4)
    os.kill(psutil.Process(ranks.pid).children()[1].pid, signal.SIGKILL)
    assert "exitcode: -9" in finish(ranks)
    return out


def test_a_killed_rank_is_started_again_and_the_result_is_the_same(disturbed: Path, two_ranks: Path) -> None:
    one, other = open_run(two_ranks / "run"), open_run(disturbed)
    assert np.array_equal(one.user_embeddings, other.user_embeddings)
    assert np.array_equal(one.item_embeddings, other.item_embeddings)
    assert one.metrics["test"] == other.metrics["test"]
    assert one.config == {**other.config, "teacher": one.config["teacher"]}
    assert one.metrics["training"]["epochs"] == other.metrics["training"]["epochs"] == GIVEN["epochs"]


def test_the_run_is_one_that_export_takes_and_nothing_else_is_left(disturbed: Path, small: Path) -> None:
    assert {path.name for path in disturbed.iterdir()} == {
        "config.json", "curve.png", "embeddings.safetensors", "history.csv", "metrics.json",
    }  # fmt: skip
    metrics = open_run(disturbed).metrics
    assert metrics["training"]["ranks"] == 2
    assert {"validation", "test", "validation_all_users", "test_all_users"} <= set(metrics)
    repository = disturbed.parent / "models"
    words = ["export", str(disturbed), "--data", str(small / "data"), "--repository", str(repository)]
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
