"""A teacher and students on toy data, drawn and not trained: what a report reads, with known differences."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.data.interactions import Interactions, save_interactions
from distill.report.material import Frontier, FrontierPoint, Material, gather
from distill.run import Run, features_fingerprint, open_run, write_run
from distill.training.trainer import final_reports
from tests.distill.toy import build_random

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


def invent_frontier(data: Interactions, name: str = "freqd-d4-int8", **more: Any) -> Frontier:
    """A frontier of three candidates, the last of which is recommended and calls itself `name`."""
    points = (
        invent_point("teacher-float32", 1.0, 64, 80.0, method="teacher", training_seconds=None),
        invent_point("svd-d4-float16", 0.8, 8, 40.0, method="svd", training_seconds=None, unbeaten=False, fits=False),
        invent_point(name, 0.97, 4, 30.0, precision="int8", taught_by="teacher + ease"),
    )
    values: dict[str, Any] = {
        "limits": {"max_bytes_per_item": None, "max_p99_ms": None, "min_kept": 0.95}, "recommended": name,
        "sentences": (f"Take `{name}`.",), "commands": ("lowpass export frontier",), **more,
    }  # fmt: skip
    return Frontier(data.name, data.fingerprint, 16, points, **values)


def invent_point(name: str, kept: float, bytes_per_item: float, p99_us: float = 100.0, **more: Any) -> FrontierPoint:
    """A point whose median time is half its 99th percentile."""
    values: dict[str, Any] = {
        "method": "freqd", "precision": "float32", "kept_interval": (kept - 0.01, kept + 0.01), "kept_on_test": None,
        "bytes_per_user": 4 * bytes_per_item, "training_seconds": 7.0, "is_graph": False, "servable": True,
        "unbeaten": True, "fits": True, **more,
    }  # fmt: skip
    return FrontierPoint(
        name=name, kept=kept, bytes_per_item=bytes_per_item, p50_us=p99_us / 2, p99_us=p99_us, **values
    )


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
    document = {
        "data": data_name, "graph": "cooccurrence", "num_neighbors": 5, "grouping": "equal-width",
        "isolated_entities": 0, "basis": "exact", "leakage": 1e-12, "groups": groups, "teacher": teacher,
        "students": students,
    }  # fmt: skip
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Gallery:
    """A folder with data, a teacher, and students: freqd under two seeds and a worse one from scratch."""

    folder: Path
    data: Interactions
    teacher: Run
    freqd: tuple[Run, Run]
    scratch: Run

    @property
    def students(self) -> list[Path]:
        return [*(run.path for run in self.freqd), self.scratch.path]

    def gather(self) -> Material:
        return gather(self.students, self.folder / "data")


def build_gallery(folder: Path) -> Gallery:
    """Write data and runs of a gallery into a folder."""
    data = build_random(np.random.default_rng(5), num_users=60, num_items=45)
    save_interactions(data, folder / "data")
    teacher = invent_run(folder / "teacher", data, dim=16, skill=9.0)
    first, second = (
        invent_run(folder / f"freqd-{seed}", data, method="freqd", seed=seed, teacher=teacher, skill=6.0,
                   settings={"variant": "bipartite", "alpha": 0.2}, dim=12)
        for seed in (0, 1)
    )  # fmt: skip
    scratch = invent_run(folder / "scratch", data, skill=0.5)
    return Gallery(folder, data, teacher, (first, second), scratch)
