"""A teacher and students on toy data, drawn and not trained: what a report reads, with known differences."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.data.interactions import Interactions
from distill.run import Run, open_run, write_run
from distill.training.job import features_fingerprint
from distill.training.trainer import final_reports

HISTORY = ((5.0, 1.0, 0.1), (10.0, 2.0, 0.3), (15.0, 4.0, 0.2))
"""Epoch, seconds, validation Recall@20."""


def invent_run(
    path: Path,
    data: Interactions,
    *,
    method: str = "scratch",
    dim: int = 4,
    seed: int = 0,
    teacher: Run | None = None,
    skill: float = 1.0,
    history: Sequence[tuple[float, float, float]] = HISTORY,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Write a run whose scores are the held-out items times `skill`, plus noise.

    Args:
        path: Where.
        data: Its truth is what the run knows.
        method: Recorded.
        dim: Of the embeddings; the truth is cut to this rank.
        seed: Of the noise, recorded.
        teacher: Recorded with its fingerprint.
        skill: How far the truth stands out of the noise.
        history: As `HISTORY`.
        settings: Of the method.
    """
    rng = np.random.default_rng(seed)
    truth = (data.train + data.validation + data.test).toarray().astype(np.float64)
    left, values, right = np.linalg.svd(skill * truth + rng.normal(size=truth.shape))
    users = (left[:, :dim] * values[:dim]).astype(np.float32)
    items = np.ascontiguousarray(right[:dim].T).astype(np.float32)
    config = {
        "backbone": "bprmf",
        "method": method,
        "dim": dim,
        "seed": seed,
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "teacher": None if teacher is None else str(teacher.path),
        "teacher_fingerprint": None if teacher is None else features_fingerprint(teacher),
        "method_settings": dict(settings or {}),
        "training": {"weight_decay": 0.001},
    }
    reports = final_reports(torch.from_numpy(users), torch.from_numpy(items), data)
    write_run(path, config, users, items, {**reports, "training": {"best_epoch": 10, "seconds": 4.0}})
    if history:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["epoch", "seconds", "Recall@20"])
        writer.writerows(history)
        (path / "history.csv").write_text(text.getvalue(), encoding="utf-8")
    return open_run(path)


def invent_frontier(path: Path, data: Interactions, name: str = "freqd-d4-int8") -> Path:
    """Write a `frontier.json` of three candidates, the last of which is recommended and calls itself `name`."""
    candidates = [
        _candidate("teacher-float32", "teacher", 1.0, 64.0, 40.0),
        _candidate("svd-d4-float16", "svd", 0.8, 8.0, 20.0),
        _candidate(name, "freqd", 0.97, 4.0, 15.0),
    ]
    document = {
        "format": 1,
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "limits": {"max_bytes_per_item": None, "max_p99_ms": None, "min_kept": 0.95},
        "candidates": candidates,
        "pareto": ["teacher-float32", name],
        "recommended": name,
        "reasons": [f"Take `{name}`."],
        "notes": [],
        "commands": ["lowpass publish frontier"],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _candidate(name: str, method: str, kept: float, size: float, time: float) -> dict[str, Any]:
    return {
        "name": name, "method": method, "kept": kept, "kept_interval": [kept - 0.01, kept + 0.01], "kept_on_test": None,
        "bytes_per_item": size, "bytes_per_user": 4 * size, "latency_us": {"p50": time, "p99": 2 * time},
        "training_seconds": 7.0, "trained": method == "freqd", "fits": kept >= 0.95,
    }  # fmt: skip


def invent_analysis(path: Path, data_name: str, runs: Sequence[str]) -> Path:
    """Write an `analysis.json` of three groups, the last of which the teacher has nothing in."""
    students = [
        {
            "run": run, "dim": 4, "Recall@20": 0.2, "energies": [3.0, 1.0, 0.0], "losses": [1.0, 1.0, 0.0],
            "kept": [0.75, 0.5, None], "kept_in_all": 2 / 3,
        }
        for run in runs
    ]  # fmt: skip
    groups = [{"from": low, "to": low + 2 / 3, "frequencies": 5.0} for low in (0.0, 2 / 3, 4 / 3)]
    teacher = {"run": "teacher", "energies": [4.0, 2.0, 0.0]}
    document = {"data": data_name, "graph": "cooccurrence", "groups": groups, "teacher": teacher, "students": students}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
