"""Candidates made by hand, and a small world of data, teacher and students."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.build.questions import Latency
from export.frontier.candidates import NDCG, RECALL, SCORES, Candidate, Quality
from export.frontier.choice import Row

USERS = 40


def build_candidate(
    name: str,
    recall: float,
    bytes_per_item: int = 16,
    p99_us: float = 100.0,
    *,
    method: str = "freqd",
    recalls: Sequence[float] = (),
    **more: Any,
) -> Candidate:
    """A student whose users all have the same recall, unless `recalls` says otherwise."""
    per_user = np.array(recalls, dtype=np.float64) if len(recalls) else np.full(USERS, recall)
    found = {RECALL: recall, NDCG: recall / 2}
    values: dict[str, Any] = {
        "dim": 16, "precision": "float32", "run": Path("runs") / name, "index": "Flat", "search": {}, "ann_recall": 1.0,
        "code_bytes": bytes_per_item, "bytes_per_user": 64, "training_seconds": 3.0, "build_seconds": 0.1, **more,
    }  # fmt: skip
    return Candidate(
        name=name,
        method=method,
        quality=Quality(found, {RECALL: recall * 0.9, NDCG: recall / 3}, per_user),
        bytes_per_item=bytes_per_item,
        latency=Latency(p99_us / 2, p99_us),
        **values,
    )


def build_row(name: str, kept: float, bytes_per_item: int = 16, p99_us: float = 100.0, **more: Any) -> Row:
    """A row that keeps `kept` of a teacher whose recall is 0.2."""
    pareto = more.pop("pareto", True)
    candidate = build_candidate(name, kept * 0.2, bytes_per_item, p99_us, **more)
    return Row(candidate, kept, (kept - 0.01, kept + 0.01), kept - 0.02, pareto)


def build_untrained(name: str, kept: float, bytes_per_item: int = 16, **more: Any) -> Row:
    """A row of what needs no training."""
    return build_row(name, kept, bytes_per_item, **{"method": "svd", "run": None, "training_seconds": 0.0, **more})


def build_teacher(**more: Any) -> Row:
    """The first row of every table."""
    return build_untrained("teacher-float32", 1.0, 256, method="teacher", dim=64, **more)


def build_baseline(name: str, kept: float, bytes_per_item: int) -> Row:
    """A row that no bundle can hold."""
    return build_untrained(name, kept, bytes_per_item, method=name, dim=0, index=SCORES)
