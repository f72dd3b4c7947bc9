"""What a practitioner tries first, undistilled: popularity, ItemKNN and EASE.

Each takes the training interactions and returns a `Baseline`: scores for rows of users, and what it weighs. They
compete under the protocol of `evaluation`, tuned on validation over `GRIDS`.

References:
    Cremonesi, Koren and Turrin, "Performance of recommender algorithms on top-N recommendation tasks", RecSys 2010
        (popularity; cosine similarity of items with shrinkage, unnormalised sums of the nearest).
    Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, eq. 8.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.metrics import Rows
from distill.evaluation.protocol import Protocol, evaluate_scores
from distill.evaluation.ranking import ScoreRows
from distill.graph.adjacency import cooccurrence_blocks, row_numbers, top_k_per_row

EASE_MAX_BYTES = 4 * 2**30
TUNING = Protocol(split="validation", cutoffs=(10,))
TUNING_METRIC = "NDCG@10"  # what early stop goes by


@dataclass(frozen=True)
class Baseline:
    """A fitted model that is not embeddings.

    Attributes:
        score_rows: Training users (B,) → scores (B, |I|).
        num_bytes: What scoring keeps, bytes, without the training interactions.
    """

    score_rows: ScoreRows
    num_bytes: int


def popularity(train: sp.csr_matrix) -> Baseline:
    """Score an item by its number of training interactions (CSR of shape (|U|, |I|)), the same for every user."""
    counts = torch.from_numpy(np.bincount(train.indices, minlength=train.shape[1]).astype(np.float32))
    return Baseline(lambda users: counts.expand(len(users), -1), counts.nbytes)


def item_knn(train: sp.csr_matrix, num_neighbors: int, shrink: float) -> Baseline:
    """Score an item by its similarity to what the user took: Σ_{j taken} s_ij over the items j nearest to i.

    s_ij = c_ij / (√(n_i n_j) + shrink), with c_ij users in common and n_i users of i: the cosine of two columns,
    shrunk where it rests on few users.

    Args:
        train: CSR of ones, shape (|U|, |I|).
        num_neighbors: Items j kept for each item i.
        shrink: Not negative.
    """
    item_users = train.T.tocsr()
    norms = np.sqrt(np.diff(item_users.indptr)).astype(np.float32)
    blocks = []
    for start, similarity in cooccurrence_blocks(item_users):
        rows = row_numbers(similarity) + start
        similarity.data /= norms[rows] * norms[similarity.indices] + np.float32(shrink)
        similarity.data[similarity.indices == rows] = 0.0
        nearest = top_k_per_row(similarity, num_neighbors)
        nearest.eliminate_zeros()
        blocks.append(nearest)
    weights = sp.vstack(blocks, format="csr").T.tocsr()
    num_bytes = weights.data.nbytes + weights.indices.nbytes + weights.indptr.nbytes
    return Baseline(lambda users: (train[users] @ weights).toarray(), num_bytes)


def ease(train: sp.csr_matrix, regularization: float, max_bytes: int = EASE_MAX_BYTES) -> Baseline:
    """Score by the linear item–item model with a zero diagonal that reconstructs R best, in closed form.

    With P = (RᵀR + λI)⁻¹ the weights are B = I − P diag(P)⁻¹ and the scores r_u B. Since
    R (RᵀR + λI)⁻¹ = (RRᵀ + λI)⁻¹ R, users can stand in for items: with M = (RRᵀ + λI)⁻¹ the scores are
    r_u − (M_u R) diag(P)⁻¹ and diag(P)_i = (1 − r_iᵀ M r_i) / λ. The smaller side is inverted, n of them.

    Args:
        train: R, CSR of ones, shape (|U|, |I|).
        regularization: λ, above 0.
        max_bytes: Bound on what the inversion holds: three float32 matrices of n × n.

    Raises:
        SettingError: It would need more, or λ is not above 0.
    """
    if regularization <= 0:
        raise SettingError(f"regularization: {regularization} is not above 0")
    size = min(train.shape)
    if 12 * size**2 > max_bytes:
        raise SettingError(
            f"ease: inverting {size:,} × {size:,} needs {12 * size**2:,} bytes, and {max_bytes:,} are allowed; "
            "allow more with --ease-max-bytes, or leave EASE out"
        )
    if train.shape[1] <= train.shape[0]:
        return _ease_by_items(train, regularization)
    return _ease_by_users(train, regularization)


def _inverse(incidence: sp.csr_matrix, regularization: float) -> npt.NDArray[np.float32]:
    """(X Xᵀ + λI)⁻¹ of a CSR of ones."""
    size = incidence.shape[0]
    gram = torch.empty(size, size)
    for start, counts in cooccurrence_blocks(incidence):
        gram[start : start + counts.shape[0]] = torch.from_numpy(counts.toarray())
    gram.diagonal().add_(regularization)
    inverse: npt.NDArray[np.float32] = torch.cholesky_inverse(torch.linalg.cholesky(gram)).numpy()
    return inverse


def _ease_by_items(train: sp.csr_matrix, regularization: float) -> Baseline:
    weights = _inverse(train.T.tocsr(), regularization)
    weights /= -weights.diagonal()
    np.fill_diagonal(weights, 0.0)
    return Baseline(lambda users: train[users] @ weights, weights.nbytes)


def _ease_by_users(train: sp.csr_matrix, regularization: float) -> Baseline:
    inverse = _inverse(train, regularization)
    item_users = train.T.tocsr()

    def project(users: Rows) -> npt.NDArray[np.float32]:
        """M_u R, shape (B, |I|)."""
        product: npt.NDArray[np.float32] = (item_users @ inverse[users].T).T
        return product

    explained = np.zeros(train.shape[1])
    for users in np.array_split(np.arange(train.shape[0]), -(-train.shape[0] // 256)):
        taken = train[users]
        explained += np.bincount(
            taken.indices, project(users)[row_numbers(taken), taken.indices], minlength=train.shape[1]
        )
    scale = (regularization / (1.0 - explained)).astype(np.float32)

    def score_rows(users: Rows) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = train[users].toarray() - project(users) * scale
        return scores

    return Baseline(score_rows, inverse.nbytes + scale.nbytes)


BASELINES: dict[str, Callable[..., Baseline]] = {"popularity": popularity, "itemknn": item_knn, "ease": ease}
"""Name → function of the training interactions and of its settings."""

GRIDS: dict[str, tuple[dict[str, float], ...]] = {
    "popularity": ({},),
    "itemknn": tuple(
        {"num_neighbors": num_neighbors, "shrink": shrink}
        for num_neighbors in (5, 10, 20, 50, 100, 200)
        for shrink in (0.0, 10.0, 100.0)
    ),
    "ease": tuple({"regularization": value} for value in (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)),
}
"""Name → the settings tried."""


@dataclass(frozen=True)
class Tuned:
    """The best point of a grid.

    Attributes:
        settings: Of the baseline.
        baseline: Fitted.
        seconds: To fit it.
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
    bound = {"max_bytes": ease_max_bytes} if name == "ease" else {}
    tried = []

    def fit(settings: Mapping[str, float]) -> tuple[float, Mapping[str, float], Baseline, float]:
        started = time.perf_counter()
        baseline = BASELINES[name](data.train, **settings, **bound)
        seconds = time.perf_counter() - started
        value = evaluate_scores(baseline.score_rows, data, TUNING).metrics[TUNING_METRIC]
        tried.append({**settings, TUNING_METRIC: round(value, 6)})
        return value, settings, baseline, seconds

    points = tqdm(GRIDS[name], desc=name, unit="fit", disable=None if progress else True, leave=False)
    _, settings, baseline, seconds = max(map(fit, points), key=itemgetter(0))
    return Tuned(settings, baseline, seconds, tuple(tried))


def report_baselines(
    data: Interactions, protocol: Protocol, *, ease_max_bytes: int = EASE_MAX_BYTES
) -> dict[str, dict[str, Any]]:
    """Tune every baseline and rank with it under a protocol.

    Returns:
        Name → "settings", "bytes", "seconds" to fit, "tuning" and the report; "refused", a reason, where EASE needs
        more memory than it may have: the others are of use without it.

    Raises:
        SettingError: There are no validation interactions, or as `evaluate_scores`.
    """
    reports: dict[str, dict[str, Any]] = {}
    for name in BASELINES:
        try:
            tuned = tune(name, data, ease_max_bytes=ease_max_bytes, progress=True)
        except SettingError as error:
            if name != "ease":
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
