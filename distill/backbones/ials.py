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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from distill.errors import SettingError

INITIAL_STD = 0.1
"""Over √d: so is the first length of a vector, whatever d (Rendle et al., 2022)."""
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


class IALS(BPRMF):
    """A table like BPRMF's that an epoch solves for: first all users, then all items."""

    Settings = IALSSettings
    training_defaults: ClassVar[Mapping[str, float]] = {"epochs": 100, "patience": 5, "eval_every": 1}
    score_temperature = 0.1

    def __init__(self, train: sp.csr_matrix, dim: int, settings: IALSSettings) -> None:
        """Draw the table; `train` is the CSR of shape (|U|, |I|) that is fitted."""
        super().__init__(train.shape[0], train.shape[1], dim)
        with torch.no_grad():
            self.table.normal_(std=INITIAL_STD / dim**0.5)
        self.settings = settings
        self._train = train
        self._train_transposed = train.T.tocsr()

    @classmethod
    def build(cls, settings: IALSSettings, data: Interactions, dim: int) -> Self:
        """Make it for the training interactions."""
        return cls(data.train, dim, settings)

    def base_loss(self, batch: Batch, embeddings: torch.Tensor) -> torch.Tensor:
        """Sum (1 − s⁺)² + α₀ |U| |I| / |train| s⁻² over the batch: a scalar, the loss by one negative a pair.

        That is what a student of this kind adds to its distillation loss; alone it is solved.
        """
        users = embeddings[batch.users]
        positive, negative = (
            (users * embeddings[self.num_users + items]).sum(dim=1) for items in (batch.positives, batch.negatives)
        )
        weight = self.settings.unobserved_weight * self.num_users * self.num_items / self._train.nnz
        loss: torch.Tensor = ((1 - positive) ** 2 + weight * negative**2).sum()
        return loss

    @torch.no_grad()
    def solve_epoch(self) -> float:
        """Solve for all users, then for all items; return the loss."""
        users, items = self.table[: self.num_users], self.table[self.num_users :]
        solve_rows(users, items, self._train, self.settings)
        fitted = solve_rows(items, users, self._train_transposed, self.settings)
        held_back = float(penalties(self._train, self.settings).to(users.device) @ users.square().sum(dim=1))
        return held_back + int(self._train.nnz) - fitted


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
