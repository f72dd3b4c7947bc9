from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import lowpass
from distill.distributed.job import ShardedOptions, supported_job
from distill.errors import SettingError
from distill.methods.cross_entropy import NUM_NEGATIVES
from distill.run import open_run
from distill.training.job import build_job
from tests.distill.distributed.two_ranks import GIVEN

pytestmark = pytest.mark.timeout(900)  # ranks that import torch twice, on a machine that others use


@pytest.fixture
def disturbed(two_ranks: Path) -> Path:
    """A run of two ranks, one of which was killed on the way."""
    return two_ranks / "disturbed" / "run"


def test_a_killed_rank_is_started_again_and_the_result_is_the_same(disturbed: Path, two_ranks: Path) -> None:
    one, other = open_run(two_ranks / "run"), open_run(disturbed)
    assert np.array_equal(one.user_embeddings, other.user_embeddings)
    assert np.array_equal(one.item_embeddings, other.item_embeddings)
    assert one.metrics["test"] == other.metrics["test"]
    assert one.config == {**other.config, "teacher": one.config["teacher"]}
    assert one.metrics["training"]["epochs"] == other.metrics["training"]["epochs"] == GIVEN["epochs"]


def test_the_run_is_one_that_export_takes_and_nothing_else_is_left(disturbed: Path, small: Path) -> None:
    assert {path.name for path in disturbed.iterdir()} == {
        "config.json", "curve.png", "embeddings.safetensors", "history.csv", "metrics.json", "users.parquet",
        "items.parquet",
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
    ("--continue-from", "yesterday"): "continue_from: a sharded training starts from nothing",
    ("--filter", "quadratic"): "filter: a sharded filter reaches direct neighbours alone",
    ("--variant", "cooccurrence"): "variant: 'cooccurrence' is not sharded",
    ("--keep-prob", "0.5"): "keep_prob: 0.5 is not sharded",
    ("--keep-checkpoints", "2"): "keep_checkpoints: a sharded training keeps no earlier states",
    ("ce", "num_negatives=0"): "num_negatives: 0 scores the whole catalogue",
    ("ce", "num_hard=50"): "num_hard, rank_every: no rank can rank by the student alone; leave them out",
    ("ce", "rank_every=5"): "num_hard, rank_every: no rank can rank by the student alone; leave them out",
    ("ce", "alpha=0.5"): "alpha: 0.5 is not sharded",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_is_not_sharded_is_refused_by_name(words: tuple[str, str]) -> None:
    word, value = words
    method, backbone, given = "freqd", "bprmf", {"co_teachers": "none"}
    match word:
        case "--method":
            method = value
        case "--backbone":
            backbone = value
        case "ce":
            method, given = "ce", {**given, **dict([value.split("=")])}
        case _:
            given[word.removeprefix("--").replace("-", "_")] = value
    with pytest.raises(SettingError, match=f"^{REFUSED[words]}"):
        supported_job(build_job(method, given, backbone=backbone))


@pytest.mark.parametrize("name", ["table_learning_rate", "checkpoint_seconds"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_what_no_training_can_have_is_refused(name: str, value: float) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(SettingError, match=f"^{name}: {value} "):
        ShardedOptions(**given)


@pytest.mark.parametrize(("given", "negatives"), [({}, NUM_NEGATIVES), ({"num_negatives": 7, "num_hard": 0}, 7)])
def test_ce_is_sampled_and_the_run_says_how(given: dict[str, int], negatives: int) -> None:
    job = supported_job(build_job("ce", {"co_teachers": "none", **given}))
    (settings,) = job.settings or ()
    assert (settings.num_negatives, settings.num_hard) == (negatives, 0)


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
