"""What is compared with students and is not trained: baselines, and the teacher made small.

All is ranked under the protocol of the students. Rounded or quantised vectors are decoded before they score, so what is
stored is what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distill.baselines import BASELINES, tune
from distill.data.interactions import Interactions
from distill.evaluation.protocol import evaluate_scores, report_splits
from distill.methods.svd import truncated_svd
from distill.run import Run
from distill.training.trainer import final_reports
from export.build.precision import PRODUCT, decode_rounded, store

Vectors = npt.NDArray[np.float32]

PRECISION_OF = {"teacher-float16": "float16", "teacher-int8": "int8", "teacher-pq": PRODUCT}
"""Name → precision of the teacher's items."""

UNTRAINED = (*BASELINES, "svd", *PRECISION_OF)

OF_STUDENT_SIZE = frozenset({"svd", "teacher-pq"})
"""Those that depend on d_s: built for each of a study's dimensions, the others once."""


@dataclass(frozen=True)
class Built:
    """An untrained model and its quality.

    Attributes:
        settings: What was chosen, on validation.
        metrics: As in a run's `metrics.json`.
        bytes_per_item: None for models that are not item vectors.
        bytes_per_user: None for models that are not user vectors.
        seconds: How long it took to build.
    """

    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    bytes_per_item: float | None
    bytes_per_user: float | None
    seconds: float


def build_untrained(name: str, data: Interactions, teacher: Run, dim: int) -> Built:
    """Build one model of `UNTRAINED` and rank with it.

    Args:
        name: A baseline learns from the training split, the others make the teacher small.
        data: What is ranked.
        teacher: The run that is made small.
        dim: d_s of the students that it is to match in bytes an item.
    """
    started = time.perf_counter()
    if name in BASELINES:
        best = tune(name, data)
        metrics = report_splits(partial(evaluate_scores, best.baseline.score_rows, data), data)
        size = 4.0 * best.settings["dim"] if "dim" in best.settings else None  # of a factorisation
        return Built(dict(best.settings), metrics, size, size, round(best.seconds, 2))
    users, items, bytes_per_item = _make_small(name, teacher, dim)
    seconds = round(time.perf_counter() - started, 2)
    reports = final_reports(torch.from_numpy(users), torch.from_numpy(items), data)
    return Built({"dim": int(items.shape[1])}, reports, bytes_per_item, 4.0 * users.shape[1], seconds)


def _make_small(name: str, teacher: Run, dim: int) -> tuple[Vectors, Vectors, float]:
    """User vectors, which are never rounded, decoded item vectors, and bytes an item."""
    users, items = teacher.user_embeddings, teacher.item_embeddings
    if name == "svd":
        return *truncated_svd(users, items, dim), 4.0 * dim
    precision = PRECISION_OF[name]
    stored = store(users, items, f"{PRODUCT}{4 * dim}" if precision == PRODUCT else precision)
    return users, stored.items, float(stored.code_bytes)


def rank_decoded(run: Run, precision: str, data: Interactions) -> dict[str, Any]:
    """Rank with a run's items stored at another precision, as in a run's `metrics.json`."""
    decoded = decode_rounded(run.item_embeddings, precision)
    return final_reports(torch.from_numpy(run.user_embeddings), torch.from_numpy(decoded), data)
