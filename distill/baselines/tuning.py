"""Baselines by name, the settings that are tried, and the choice among them on validation.

Where ranking all users would take hours (`distill/evaluation/sample.py`), settings are compared on `TUNED_USERS` of
them, and of the grids whose every point is a fit of minutes a few points are tried (`LARGE_GRIDS`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from operator import itemgetter
from typing import Any

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from distill.baselines.base import Baseline
from distill.baselines.ease import EASE_MAX_BYTES, ease
from distill.baselines.graph_filters import GFCF_RANK, gf_cf, polynomial_filter, singular_basis, turbo_cf
from distill.baselines.ials import ials
from distill.baselines.neighbors import item_knn, popularity
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.protocol import Protocol, evaluate_scores
from distill.evaluation.sample import draw_users

TUNING = Protocol(split="validation", cutoffs=(10,))
TUNING_METRIC = "NDCG@10"  # what early stop goes by

BASELINES: dict[str, Callable[..., Baseline]] = {
    "popularity": popularity,
    "itemknn": item_knn,
    "ease": ease,
    "gfcf": gf_cf,
    "turbocf": turbo_cf,
    "ials": ials,
}
"""Name → function of the training interactions and of its settings."""


def _grid(**values: tuple[float, ...]) -> tuple[dict[str, float], ...]:
    """Every combination, the last setting varying fastest."""
    return tuple(dict(zip(values, point, strict=True)) for point in product(*values.values()))


GRIDS: dict[str, tuple[dict[str, float], ...]] = {
    "popularity": _grid(),
    "itemknn": _grid(num_neighbors=(5, 10, 20, 50, 100, 200), shrink=(0.0, 10.0, 100.0)),
    "ease": _grid(regularization=(3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)),
    "gfcf": _grid(rank=(32, 64, 128, GFCF_RANK), ideal_weight=(0.1, 0.3, 1.0)),
    "turbocf": _grid(alpha=(0.4, 0.5, 0.6), degree=(1, 2)),
    "ials": _grid(unobserved_ratio=(2.0, 4.0, 8.0), regularization=(0.01,), dim=(64, 256)),
}
"""Name → the settings tried."""
LARGE_GRIDS: dict[str, tuple[dict[str, float], ...]] = {
    "itemknn": _grid(num_neighbors=(20, 100), shrink=(10.0,)),
    "turbocf": _grid(alpha=(0.4, 0.5, 0.6), degree=(1,)),
    "ials": _grid(unobserved_ratio=(2.0, 4.0, 8.0), regularization=(0.01,), dim=(64,)),
}
"""The same for large data, where it differs."""
TUNED_USERS = 2_000
REFUSING = ("ease", "gfcf")
"""Those that refuse data for which they would need too much memory: the others are of use without them."""


def _share_gf_cf(train: sp.csr_matrix) -> dict[str, Any]:
    return {"basis": singular_basis(train, GFCF_RANK), "linear": polynomial_filter(train, 0.5, (1.0,))}


SHARED: dict[str, Callable[[sp.csr_matrix], Mapping[str, Any]]] = {"gfcf": _share_gf_cf}
"""Name → what all points of its grid share, computed once: further arguments of the baseline."""


@dataclass(frozen=True)
class Tuned:
    """The best point of a grid.

    Attributes:
        settings: Of the baseline.
        baseline: Fitted.
        seconds: To fit it, with what its grid shares.
        tried: Every point's settings and validation `TUNING_METRIC`, in order.
    """

    settings: Mapping[str, float]
    baseline: Baseline
    seconds: float
    tried: tuple[Mapping[str, float], ...]


def tune(name: str, data: Interactions, *, ease_max_bytes: int = EASE_MAX_BYTES, progress: bool = False) -> Tuned:
    """Fit a baseline at every point of its grid and keep the one that is best on validation.

    Args:
        name: Of `BASELINES`.
        data: Train to fit, validation to compare.
        ease_max_bytes: `max_bytes` of `ease`.
        progress: Show a bar.

    Raises:
        SettingError: There are no validation interactions, or EASE needs more memory than it may have.
    """
    grid, compared = _suit(name, data)
    started = time.perf_counter()
    shared = SHARED[name](data.train) if name in SHARED else {}
    sharing = time.perf_counter() - started
    bound = {"max_bytes": ease_max_bytes} if name == "ease" else {}
    tried = []

    def fit(settings: Mapping[str, float]) -> tuple[float, Mapping[str, float], Baseline, float]:
        started = time.perf_counter()
        baseline = BASELINES[name](data.train, **settings, **shared, **bound)
        seconds = sharing + time.perf_counter() - started
        value = evaluate_scores(baseline.score_rows, compared, TUNING).metrics[TUNING_METRIC]
        tried.append({**settings, TUNING_METRIC: round(value, 6)})
        return value, settings, baseline, seconds

    points = tqdm(grid, desc=name, unit="fit", disable=None if progress else True, leave=False)
    _, settings, baseline, seconds = max(map(fit, points), key=itemgetter(0))
    return Tuned(settings, baseline, seconds, tuple(tried))


def _suit(name: str, data: Interactions) -> tuple[tuple[dict[str, float], ...], Interactions]:
    """The settings to try, and the data with the validation items of those users alone on whom they are compared."""
    wanted = np.diff(data.validation.indptr)
    if not draw_users(wanted, data.num_items).is_drawn:
        return GRIDS[name], data
    users = draw_users(wanted, data.num_items, TUNED_USERS).users
    taken = sp.csr_matrix((np.ones(len(users), np.float32), (users, users)), shape=(data.num_users,) * 2)
    return LARGE_GRIDS.get(name, GRIDS[name]), replace(data, validation=(taken @ data.validation).tocsr())


def report_baselines(
    data: Interactions, protocol: Protocol, *, ease_max_bytes: int = EASE_MAX_BYTES
) -> dict[str, dict[str, Any]]:
    """Tune every baseline and rank with it under a protocol.

    Returns:
        Name → "settings", "bytes", "seconds" to fit, "tuning" and the report; "refused", a reason, where one of
        `REFUSING` needs more memory than it may have.

    Raises:
        SettingError: There are no validation interactions, or as `evaluate_scores`.
    """
    reports: dict[str, dict[str, Any]] = {}
    for name in BASELINES:
        try:
            tuned = tune(name, data, ease_max_bytes=ease_max_bytes, progress=True)
        except SettingError as error:
            if name not in REFUSING or not data.validation.nnz:
                raise
            reports[name] = {"refused": str(error)}
            continue
        reports[name] = {
            "settings": dict(tuned.settings),
            "bytes": tuned.baseline.num_bytes,
            "seconds": round(tuned.seconds, 3),
            "tuning": {"metric": f"validation {TUNING_METRIC}", "tried": [dict(point) for point in tuned.tried]},
            **evaluate_scores(tuned.baseline.score_rows, data, protocol, progress=True).as_dict(),
        }
    return reports
