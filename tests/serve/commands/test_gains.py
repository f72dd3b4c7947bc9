from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import lowpass
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.run import Run, write_run
from export.build.publish import ExportOptions, export_run
from export.bundle.repository import ModelRepository
from serve.bench.children import run_load, serve_model
from serve.bench.errors import GainsError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of 16 numbers and students of 8, one with an answer table, exported from random embeddings."""
    root = tmp_path_factory.mktemp("gains")
    data = synthesize(SyntheticOptions(num_users=80, num_items=300, num_clusters=8, mean_interactions=12))
    rng = np.random.default_rng(0)
    for name, dim, answer_table in (("big", 16, 0), ("small", 8, 0), ("ready", 8, 20)):
        users, items = (rng.normal(size=(n, dim)).astype(np.float32) for n in (data.num_users, data.num_items))
        config = {"backbone": "bprmf", "method": "freqd", "data": {"fingerprint": data.fingerprint}}
        write_run(root / "runs" / name, config, users, items, {})
        run = Run(root / "runs" / name, config, users, items, {})
        export_run(run, data, ModelRepository(root / "models"), name, ExportOptions(answer_table=answer_table))
    return root / "models"


def test_the_whole_comparison(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["gains", "--repository", str(models), "--teacher", "big", "--student", "small"]
    assert lowpass.main([*command, "--out", str(tmp_path), "--requests", "40", "--rounds", "1", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads((tmp_path / "gains.json").read_text())
    assert [model["name"] for model in content["models"]] == ["big", "small", "big-svd8", "big-pq32"]
    teacher, student, *_ = content["models"]
    assert (teacher["item_bytes"], student["item_bytes"]) == (64, 32)
    for model in content["models"]:
        assert model["errors"] == {}
        assert 0 < model["levels"]["1"]["p50_ms"]["median"] <= model["levels"]["1"]["p99_ms"]["median"]
        assert model["levels"]["32"]["throughput"]["median"] > 0
    assert content["gains_over_teacher"]["small"]["item_bytes"] == 2
    assert "| bytes an item, in the index | 64 | 32 | 32 | 32 |" in (tmp_path / "gains.md").read_text()
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("student", "message"), [("nobody", "nobody"), ("big", "name two models")])
def test_models_that_cannot_be_compared(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], student: str, message: str
) -> None:
    out = tmp_path / "gains"
    command = ["gains", "--repository", str(models), "--teacher", "big", "--student", student, "--out", str(out)]
    assert lowpass.main(command) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_ready_answers_are_compared_only_when_asked_for(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gains", "--repository", str(models), "--teacher", "big", "--student", "ready", "--no-rivals"]
    command += ["--out", str(tmp_path), "--requests", "20", "--rounds", "1"]
    assert lowpass.main(command) == 2
    assert "ready: answers from a table made at export" in capsys.readouterr().err
    assert lowpass.main([*command, "--answer-tables", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [model["answer_table"] for model in content["models"]] == [0, 20]
    report = (tmp_path / "gains.md").read_text()
    assert "| ready answers a user, looked up instead | 0 | 20 |" in report
    assert "Answered from tables made at export, without a search: ready." in report


def test_a_server_that_cannot_start_gives_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(GainsError, match=r"model 'none': its server ended with exit code 2"),
        serve_model(tmp_path, "none", None),
    ):
        pass


def test_a_load_that_fails_says_why(models: Path, tmp_path: Path) -> None:
    with (
        serve_model(models, "small", None) as server,
        pytest.raises(GainsError, match=r"the load on model .small. failed with exit code 2: .*manifest\.json"),
    ):
        run_load(server, tmp_path, ["--requests", "1"], None)
