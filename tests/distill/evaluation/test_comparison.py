from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.errors import RunError
from distill.evaluation.comparison import compare_runs, label
from distill.run import Run, open_run, write_run

SETTINGS = {"variant": "bipartite", "projector": "linear", "loss": "cosine", "distillation_weight": 0.5}


def build_run(recall: float, *, seed: int | None, method: str = "freqd", dim: int = 20) -> Run:
    report = {"Recall@20": recall, "NDCG@20": recall / 2}
    config: dict[str, Any] = {
        "backbone": "bprmf",
        "method": method,
        "dim": dim,
        "seed": seed,
        "method_settings": SETTINGS if method == "freqd" else {},
        "training": {"weight_decay": 0.001},
    }
    metrics: dict[str, Any] = {
        "validation": report,
        "test": report,
        "test_all_users": {"Recall@20": recall * 0.9, "NDCG@20": 0.0},
        "training": {"best_epoch": 10 * (seed or 0), "seconds": 2.0 + (seed or 0)},
    }
    embeddings = np.ones((2, dim), dtype=np.float32)
    return Run(Path("unused"), config, embeddings, embeddings, metrics)


def test_seeds_of_one_setting_become_mean_and_sample_deviation() -> None:
    runs = [build_run(0.1, seed=0), build_run(0.5, seed=0, method="scratch")]
    runs += [build_run(0.2, seed=1), build_run(0.6, seed=2)]
    distilled, scratch = compare_runs(runs)
    assert distilled["seeds"] == [0, 1, 2]
    assert distilled["test Recall@20"]["mean"] == pytest.approx(0.3)
    assert distilled["test Recall@20"]["std"] == pytest.approx(np.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert distilled["validation NDCG@20"]["mean"] == pytest.approx(0.15)
    assert (distilled["epochs"], distilled["seconds"]) == (10.0, 3.0)
    assert scratch["test Recall@20"] == {"mean": 0.5, "std": 0.0}


def test_any_other_setting_makes_another_line() -> None:
    rows = compare_runs([build_run(0.1, seed=0), build_run(0.1, seed=0, dim=40)])
    assert [row["dim"] for row in rows] == [20, 40]


def test_average_over_all_users_reads_the_other_report() -> None:
    (row,) = compare_runs([build_run(0.5, seed=0)], average="all")
    assert row["test Recall@20"]["mean"] == pytest.approx(0.45)
    assert "validation Recall@20" not in row


def test_runs_of_different_data_are_not_compared() -> None:
    runs = [build_run(0.1, seed=seed) for seed in range(2)]
    for run, name in zip(runs, ("mine", "other"), strict=True):
        run.config["data"] = {"name": name, "fingerprint": name}  # type: ignore[index]
    with pytest.raises(RunError, match=r"trained on other data \('other'\) than unused \('mine'\)"):
        compare_runs(runs)


def test_an_imported_run_has_a_label() -> None:
    run = build_run(0.5, seed=None, method="imported")
    config = {key: value for key, value in run.config.items() if key not in {"training", "method_settings"}}
    assert label(config) == "imported"


def test_a_label_says_who_taught_beside_the_teacher() -> None:
    config = {**build_run(0.5, seed=0, method="ce").config, "co_teachers": "auto", "teacher": "runs/teacher"}
    assert label(config) == "ce co-teachers auto wd 0.001"
    assert label({**config, "teacher": None}) == "ce co-teachers auto alone wd 0.001"
    assert label({**config, "co_teachers": "none"}) == "ce wd 0.001"
    assert label({**config, "co_teachers": "none", "continue_from": "runs/a"}) == "ce continued wd 0.001"


def save_run(path: Path, *, history: bool, validation: bool = True) -> Path:
    run = build_run(0.2, seed=0)
    metrics = {**run.metrics, "validation_all_users": run.metrics["test"]} if validation else {}
    write_run(path, run.config, run.user_embeddings, run.item_embeddings, metrics)
    if history:
        (path / "history.csv").write_text("epoch,seconds,Recall@20\n5.0,0.1,0.1\n10.0,0.2,0.2\n")
    return path


def test_a_run_read_back_is_the_run_written(tmp_path: Path) -> None:
    run = open_run(save_run(tmp_path / "a", history=False))
    assert run.config == json.loads(json.dumps(build_run(0.2, seed=0).config))
    np.testing.assert_array_equal(run.item_embeddings, np.ones((2, 20)))


def test_reports_on_different_users_are_not_compared() -> None:
    runs = [build_run(0.1, seed=0), build_run(0.2, seed=1)]
    for number, run in enumerate(runs):
        run.metrics["test"]["convention"] = f"mean over {number + 5} of 20 users"
    with pytest.raises(RunError, match=r"'mean over 6 of 20 users', not 'mean over 5 of 20 users'.*--data DATA --save"):
        compare_runs(runs)
    assert len(compare_runs(runs, average="all")) == 1
