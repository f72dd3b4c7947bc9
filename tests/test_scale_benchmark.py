"""The benchmark of scale, tried at a size of seconds; its figures are nobody's business here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from distill.data.interactions import load_interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from tests.benchmarks.scale.__main__ import main
from tests.benchmarks.scale.children import CommandFailed, run
from tests.benchmarks.scale.results import Result, as_json, exponents, find_kept, keep, lay_out
from tests.benchmarks.scale.steps import Measured, Place
from tests.benchmarks.scale.teacher import write_teacher

GIB = 2**30


def test_a_step_makes_what_it_needs_is_kept_and_tells_cost_and_quality(tmp_path: Path) -> None:
    words = ["--sizes", "tiny", "--steps", "prepare import", "--folder", str(tmp_path), "--json"]
    first = CliRunner().invoke(main, words, catch_exceptions=False)
    prepared, imported = json.loads(first.stdout)
    assert first.stderr.splitlines() == ["tiny synth …", "tiny prepare …", "tiny import …"]
    assert prepared["measured"]["more"]["users"] == 300
    assert (prepared["measured"]["quality"], prepared["failure"]) == (None, "")
    data = load_interactions(tmp_path / "tiny" / "data")
    assert imported["interactions"] == data.train.nnz
    assert imported["measured"]["quality"] > 0.5
    assert imported["measured"]["seconds"] > 0.1
    assert 100 << 20 < imported["measured"]["peak_bytes"] < 2 * GIB
    again = CliRunner().invoke(main, words, catch_exceptions=False)
    assert again.stderr == ""
    assert json.loads(again.stdout) == [prepared, imported]


def test_a_step_that_fails_or_takes_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="exit code 3"):
        run(["bash", "-c", "exit 3"], tmp_path / "log", core=None, limit=60)
    with pytest.raises(CommandFailed, match=r"stopped after 0.2 s"):
        run(["sleep", "60"], tmp_path / "log", core=None, limit=0.2)
    words = ["--sizes", "tiny", "--steps", "synth", "--limit", "0.01", "--folder", str(tmp_path), "--json"]
    (row,) = json.loads(CliRunner().invoke(main, words, catch_exceptions=False).stdout)
    assert row["measured"] is None
    assert "stopped after" in row["failure"]


def test_unknown_words_are_refused() -> None:
    refused = CliRunner().invoke(main, ["--sizes", "XXL"])
    assert refused.exit_code == 2
    assert "'XXL' is not one of tiny, S, M, L" in refused.stderr


def result(step: str, size: str, interactions: int, seconds: float, peak: float = 1.0) -> Result:
    return Result(step, size, interactions, Measured(seconds, int(peak * GIB), 0.25, {"epochs": 3}))


def test_bars_and_growth() -> None:
    met, missed = result("bprmf", "M", 4_000_000, 30), result("bprmf", "L", 16_000_000, 190, peak=3.5)
    failed = Result("export", "L", 16_000_000, failure="stopped after 9 s")
    free = result("synth", "M", 4_000_000, 10)
    assert [each.is_met for each in (met, missed, failed, free)] == [True, False, False, None]
    assert exponents([missed, met, failed]) == {("bprmf", "L"): pytest.approx(np.log(190 / 30) / np.log(4))}
    table = lay_out([met, missed, failed, free])
    assert "1.33 > 1.15" in table
    assert table.endswith("L export: stopped after 9 s")
    assert [row["is_met"] for row in as_json([met, missed])] == [True, False]


def test_results_come_back(tmp_path: Path) -> None:
    for kept in (result("bprmf", "M", 4_000_000, 30), Result("export", "M", 4_000_000, failure="no")):
        keep(tmp_path, kept)
        assert find_kept(tmp_path, kept.step) == kept
    assert find_kept(tmp_path, "import") is None
    assert Place.of(tmp_path, "M", 3, 60.0).size.breadth == pytest.approx(0.0005)


def test_the_teacher_of_known_truth_beats_popularity(tmp_path: Path) -> None:
    options = SyntheticOptions(num_users=400, num_items=300, num_clusters=12, breadth=0.02, mean_interactions=15)
    data = synthesize(options)
    write_teacher(data, tmp_path, numbers=64)
    users, items = (np.load(tmp_path / f"{kind}.npy", allow_pickle=False) for kind in ("users", "items"))
    assert (users.dtype, users.shape, items.shape) == (np.float16, (400, 64), (data.num_items, 64))

    def recall(scores: npt.NDArray[Any]) -> float:
        top = np.argsort(np.where(data.train.toarray() > 0, np.inf, -scores), axis=1)[:, :20]
        relevant = data.test.toarray()
        return float((np.take_along_axis(relevant, top, axis=1).sum(1) / relevant.sum(1).clip(1)).mean())

    truth = recall(users.astype(np.float32) @ items.T.astype(np.float32))
    assert truth > 1.5 * recall(np.tile(data.item_popularity, (400, 1)))
