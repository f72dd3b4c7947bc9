from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import lowpass
from distill.data.interactions import save_interactions
from distill.evaluation.baselines import BASELINES
from tests.distill.toy import build_interactions, build_random

REPORTS = ["validation", "validation_all_users", "test", "test_all_users"]


@pytest.fixture
def directory(tmp_path: Path, rng: np.random.Generator) -> Path:
    save_interactions(build_random(rng), tmp_path / "data")
    return tmp_path / "data"


def test_every_baseline_is_reported_like_a_run(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["baseline", str(directory), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["data"] == "toy"
    assert list(found["baselines"]) == list(BASELINES)
    for report in found["baselines"].values():
        assert list(report) == ["settings", "bytes", "seconds", "tuning", *REPORTS]
        assert report["test"]["convention"].endswith("mean over users with relevant items")
        assert report["test_all_users"]["convention"].endswith("mean over all users")
        shrunk = report["test"]["Recall@20"] * report["test"]["num_users"] / 30
        assert report["test_all_users"]["Recall@20"] == pytest.approx(shrunk, abs=1e-6)
        best = max(point["NDCG@10"] for point in report["tuning"]["tried"])
        assert report["validation"]["NDCG@10"] == pytest.approx(best, abs=1e-6)


def test_one_method_for_people(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["baseline", str(directory), "--method", "itemknn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("itemknn, num_neighbors ")
    assert "(best of 18)" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == REPORTS


def test_ease_without_memory_is_left_out_of_all_and_an_error_alone(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = ["--ease-max-bytes", "100"]
    assert lowpass.main(["baseline", str(directory), *bound]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("ease: left out (ease: inverting 25 × 25 needs 7,500 bytes, and 100 are allowed")
    assert lowpass.main(["baseline", str(directory), "--method", "ease", *bound]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lowpass: error: ease: inverting")


def test_data_without_validation_is_the_users_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = build_interactions((2, 25), train=[(0, 0), (1, 1)], test=[(0, 1)])
    save_interactions(data, tmp_path / "data")
    assert lowpass.main(["baseline", str(tmp_path / "data")]) == 2
    assert "no validation interactions" in capsys.readouterr().err
