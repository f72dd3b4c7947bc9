"""iALS: matrix factorisation by weighted least squares over all pairs, solved in closed form, users and items in turn.

    loss = Σ_taken (1 − s_ui)² + α₀ Σ_all s_ui² + Σ_u λ_u ‖x_u‖² + Σ_i λ_i ‖y_i‖²,
    λ_u = λ (n_u + α₀ |I|)^ν, n_u the items that u has taken; λ_i likewise.

With the items fixed the best x_u solves (α₀ YᵀY + λ_u I + Σ_taken y yᵀ) x = Σ_taken y. In the eigenvectors of YᵀY all
but the last sum is a diagonal D_u, so that a user with fewer than d items costs a system of n_u numbers, not of d: with
the rows Z of the taken items, (D_u + ZᵀZ)⁻¹ Zᵀ1 = D_u⁻¹ Zᵀ (1 + Z D_u⁻¹ Zᵀ)⁻¹ 1. Rows of zeros change neither system,
so that sets of unlike size stand in one batch.

Cost of an epoch: Σ over users and items of min(n, d)² (max(n, d) + min(n, d) / 3) operations, and (|U| + |I|) d² more;
CHUNK_FLOATS bounds what is kept at a time.

References:
    Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    Rendle, Krichene, Zhang and Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys
    2022, arXiv 2110.14037, for the loss in this form, λ_u, and the scale of the first draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.baselines.base import Baseline
from distill.errors import SettingError
from distill.evaluation.metrics import Rows

INITIAL_STD = 0.1
"""Over √d: so is the first length of a vector, whatever d (Rendle et al., 2022)."""
EPOCHS = 8
"""Of the baseline: eight more bring nothing on sparse data (CiteULike), where it takes longest."""
CHUNK_FLOATS = 2**24


@dataclass(frozen=True)
class IALSSettings:
    """Settings of iALS.

    Attributes:
        unobserved_weight: α₀, of a pair that is not taken beside 1 for one that is.
        regularization: λ.
        frequency_exponent: ν; with 0 all rows are held back alike.
    """

    unobserved_weight: float = 0.1
    regularization: float = 0.003
    frequency_exponent: float = 1.0

    def __post_init__(self) -> None:
        for name in ("unobserved_weight", "regularization"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name}: {getattr(self, name)} is not above 0")
        if self.frequency_exponent < 0:
            raise SettingError(f"frequency_exponent: {self.frequency_exponent} is negative; give 0 or more")


@torch.no_grad()
def ials(
    train: sp.csr_matrix,
    unobserved_ratio: float,
    regularization: float,
    dim: int,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> Baseline:
    """Fit a factorisation and keep its items; a history's vector is solved for them.

    Args:
        train: CSR of ones, shape (|U|, |I|).
        unobserved_ratio: Weight of all pairs together, over that of the taken ones: α₀ |U| |I| / nnz(train). The best
            one hardly differs between data sets; α₀ does by their density.
        regularization: λ.
        dim: d.
        epochs: How often users and items are solved for; users once more at the end.
        seed: Of the items' first draw.

    Raises:
        SettingError: The ratio, λ or d is not above 0.
    """
    if dim < 1:
        raise SettingError(f"dim: {dim} is below 1")
    density = train.nnz / max(1, train.shape[0] * train.shape[1])
    settings = IALSSettings(unobserved_ratio * max(density, np.finfo(np.float32).tiny), regularization)
    users_of = train.T.tocsr()
    generator = torch.Generator().manual_seed(seed)
    users, items = torch.empty(train.shape[0], dim), torch.empty(train.shape[1], dim)
    items.normal_(std=INITIAL_STD / dim**0.5, generator=generator)
    for _ in range(epochs):
        solve_rows(users, items, train, settings)
        solve_rows(items, users, users_of, settings)
    solve_rows(users, items, train, settings)

    def score_rows(rows: Rows) -> torch.Tensor:
        return users[torch.from_numpy(rows)] @ items.T

    @torch.no_grad()
    def score_histories(histories: sp.csr_matrix) -> torch.Tensor:
        vectors = torch.empty(histories.shape[0], dim)
        solve_rows(vectors, items, histories, settings)
        return vectors @ items.T

    return Baseline(score_rows, score_histories, users.nbytes + items.nbytes, lambda: (users, items))


def penalties(taken: sp.csr_matrix, settings: IALSSettings) -> torch.Tensor:
    """λ (n + α₀ N)^ν of each row of a CSR of shape (R, N): shape (R,)."""
    counts = np.diff(taken.indptr) + settings.unobserved_weight * taken.shape[1]
    return torch.from_numpy((settings.regularization * counts**settings.frequency_exponent).astype(np.float32))


def solve_rows(rows: torch.Tensor, others: torch.Tensor, taken: sp.csr_matrix, settings: IALSSettings) -> float:
    """Write the best rows for fixed others in place.

    Args:
        rows: What is solved for, shape (R, d).
        others: What stays, shape (N, d).
        taken: CSR of shape (R, N).
        settings: α₀, λ and ν.

    Returns:
        By how much the taken pairs' part is below their number: Σ_r ⟨x_r, Σ_taken y⟩. The least value of the loss is
        their number less this.
    """
    values, vectors = torch.linalg.eigh(others.T @ others)
    turned = torch.cat([others @ vectors, others.new_zeros(1, others.shape[1])])
    ridge = penalties(taken, settings).to(others.device)
    diagonal = settings.unobserved_weight * values.clamp_min(0)
    fitted = 0.0
    for chosen, places in _batches(taken, others.shape[1]):
        index = torch.from_numpy(chosen).to(others.device)
        sets = turned[torch.from_numpy(places).to(others.device)]
        solution = _solve(sets, diagonal + ridge[index, None])
        fitted += float((solution * sets.sum(dim=1)).sum())
        rows[index] = solution @ vectors.T
    return fitted


def _solve(sets: torch.Tensor, diagonals: torch.Tensor) -> torch.Tensor:
    """(D + ZᵀZ)⁻¹ Zᵀ1 for Z of shape (B, n, d) and D of shape (B, d), by the smaller of both systems."""
    scaled = sets / diagonals[:, None]
    if sets.shape[1] > sets.shape[2]:
        normal = torch.diag_embed(diagonals).baddbmm_(sets.mT, sets)
        return torch.cholesky_solve(sets.sum(dim=1)[..., None], torch.linalg.cholesky(normal)).squeeze(2)
    kernel = torch.eye(sets.shape[1], device=sets.device).expand(len(sets), -1, -1).baddbmm(scaled, sets.mT)
    ones = sets.new_ones(len(sets), sets.shape[1], 1)
    weights = torch.cholesky_solve(ones, torch.linalg.cholesky(kernel))
    return (scaled.mT @ weights).squeeze(2)


def _batches(taken: sp.csr_matrix, dim: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Rows of like size, and what they have taken, padded with N: shapes (B,) and (B, n)."""
    counts = np.diff(taken.indptr)
    order = np.argsort(-counts, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        width = max(1, int(counts[order[start]]))
        chosen = order[start : start + max(1, CHUNK_FLOATS // (width * dim + min(width, dim) ** 2))]
        lengths = counts[chosen]
        places = np.full((len(chosen), width), taken.shape[1], dtype=np.int64)
        ranks = np.arange(width)
        present = ranks < lengths[:, None]
        places[present] = taken[chosen].indices
        batches.append((chosen, places))
        start += len(chosen)
    return batches
