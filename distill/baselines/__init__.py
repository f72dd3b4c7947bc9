"""What a practitioner tries first, undistilled: popularity, neighbours, low-pass models in closed form, iALS.

Each takes the training interactions and returns a `Baseline`. They compete under the protocol of `evaluation`, tuned on
validation over `GRIDS`.

tuned = tune("gfcf", data); scores = tuned.baseline.score_histories(histories)
"""

from __future__ import annotations

from distill.baselines.base import Baseline, ScoreHistories
from distill.baselines.ease import EASE_MAX_BYTES, ease
from distill.baselines.graph_filters import SingularBasis, gf_cf, ideal_filter, singular_basis, turbo_cf
from distill.baselines.ials import ials
from distill.baselines.neighbors import item_knn, popularity
from distill.baselines.tuning import BASELINES, GRIDS, Tuned, report_baselines, tune

__all__ = [
    "BASELINES",
    "EASE_MAX_BYTES",
    "GRIDS",
    "Baseline",
    "ScoreHistories",
    "SingularBasis",
    "Tuned",
    "ease",
    "gf_cf",
    "ials",
    "ideal_filter",
    "item_knn",
    "popularity",
    "report_baselines",
    "singular_basis",
    "tune",
    "turbo_cf",
]
