"""What is compared with students and is not trained: baselines, and the teacher made small.

All is ranked under the protocol of the students. Rounded or quantised vectors are decoded before they score, so what is
stored is what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distill.data.interactions import Interactions
from distill.evaluation.baselines import BASELINES, tune
from distill.evaluation.protocol import evaluate_scores, report_splits
from distill.methods.svd import truncated_svd
from distill.run import Run
from distill.training.trainer import final_reports
from export.build.precision import decode_rounded, quantize_items

Vectors = npt.NDArray[np.float32]


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
        return Built(dict(best.settings), metrics, None, None, round(best.seconds, 2))
    users, items, bytes_per_item = MADE_SMALL[name](teacher, dim)
    seconds = round(time.perf_counter() - started, 2)
    reports = final_reports(torch.from_numpy(users), torch.from_numpy(items), data)
    return Built({"dim": int(items.shape[1])}, reports, bytes_per_item, 4.0 * users.shape[1], seconds)


def _svd(teacher: Run, dim: int) -> tuple[Vectors, Vectors, float]:
    return *truncated_svd(teacher.user_embeddings, teacher.item_embeddings, dim), 4.0 * dim


def _float16(teacher: Run, _: int) -> tuple[Vectors, Vectors, float]:
    return teacher.user_embeddings, decode_rounded(teacher.item_embeddings, "float16"), 2.0 * teacher.dim


def _int8(teacher: Run, _: int) -> tuple[Vectors, Vectors, float]:
    return teacher.user_embeddings, decode_rounded(teacher.item_embeddings, "int8"), 1.0 * teacher.dim


def _pq(teacher: Run, dim: int) -> tuple[Vectors, Vectors, float]:
    decoded = quantize_items(teacher.item_embeddings, 4 * dim)[1]
    return teacher.user_embeddings, decoded, 4.0 * dim


MADE_SMALL: dict[str, Callable[[Run, int], tuple[Vectors, Vectors, float]]] = {
    "svd": _svd,
    "teacher-float16": _float16,
    "teacher-int8": _int8,
    "teacher-pq": _pq,
}
"""Name → user vectors, decoded item vectors and bytes an item."""

UNTRAINED = (*BASELINES, *MADE_SMALL)

OF_STUDENT_SIZE = frozenset({"svd", "teacher-pq"})
"""Those that depend on d_s: built for each of a study's dimensions, the others once."""


def rank_decoded(run: Run, precision: str, data: Interactions) -> dict[str, Any]:
    """Rank with a run's items stored at another precision, as in a run's `metrics.json`."""
    decoded = decode_rounded(run.item_embeddings, precision)
    return final_reports(torch.from_numpy(run.user_embeddings), torch.from_numpy(decoded), data)
