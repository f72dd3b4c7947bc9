from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.errors import RunError
from distill.evaluation.leaderboard import evaluate_run, rank_models
from distill.evaluation.protocol import Protocol, evaluate
from distill.run import Run, features_fingerprint
from tests.distill.toy import build_random


def build_run(rng: np.random.Generator, data: Interactions, **config: Any) -> Run:
    settings = {
        "backbone": "bprmf",
        "method": "scratch",
        "seed": 0,
        "data": {"fingerprint": data.fingerprint},
        **config,
    }
    users, items = (rng.normal(size=(size, 3)).astype(np.float32) for size in (data.num_users, data.num_items))
    return Run(Path(str(config.get("seed", "run"))), settings, users, items, {})


def test_a_run_is_ranked_under_the_protocol_on_its_own_data(rng: np.random.Generator) -> None:
    data = build_random(rng)
    run, protocol = build_run(rng, data), Protocol("validation", average="all", cutoffs=(5,))
    assert evaluate_run(run, data, protocol) == evaluate(run.user_embeddings, run.item_embeddings, data, protocol)
    with pytest.raises(RunError, match=r"data.fingerprint is not that of data set"):
        evaluate_run(run, build_random(rng))


def test_seeds_become_one_row_and_students_are_held_against_their_teacher(rng: np.random.Generator) -> None:
    data = build_random(rng)
    teacher = build_run(rng, data)
    of_teacher = {"method": "ce", "teacher_fingerprint": features_fingerprint(teacher)}
    students = [build_run(rng, data, **of_teacher, seed=seed) for seed in (1, 2)]
    orphan = build_run(rng, data, method="kl", teacher_fingerprint="somebody else's")
    reports = [{"Recall@5": recall, "NDCG@5": 0.5, "num_users": 3} for recall in (0.4, 0.2, 0.3, 0.3)]
    baselines: dict[str, dict[str, Any]] = {
        "popularity": {"Recall@5": 0.1, "NDCG@5": 0.2, "bytes": 4},
        "ease": {"refused": "too big"},
    }
    rows = rank_models([teacher, *students, orphan], reports, baselines, 5)
    assert [row["label"] for row in rows] == ["scratch", "ce", "kl", "popularity"]
    assert [row["kept"] for row in rows] == pytest.approx([None, 0.625, None, None])
    assert rows[1]["Recall@5"] == pytest.approx({"mean": 0.25, "std": np.std([0.2, 0.3], ddof=1)})
    assert (rows[1]["seeds"], rows[1]["runs"], rows[1]["dim"]) == ([1, 2], ["1", "2"], 3)
    assert rows[3] == {
        "label": "popularity", "dim": None, "seeds": [], "runs": [], "kept": None,
        "Recall@5": {"mean": 0.1, "std": 0.0}, "NDCG@5": {"mean": 0.2, "std": 0.0},
    }  # fmt: skip


def test_a_teacher_that_finds_nothing_keeps_no_share(rng: np.random.Generator) -> None:
    data = build_random(rng)
    teacher = build_run(rng, data)
    student = build_run(rng, data, method="ce", teacher_fingerprint=features_fingerprint(teacher))
    rows = rank_models([teacher, student], [{"Recall@5": 0.0}, {"Recall@5": 0.1}], {}, 5)
    assert [row["kept"] for row in rows] == [None, None]
