"""Low-pass filters of the interaction graph that need no training: GF-CF, a polynomial one, and ideal bands.

Items are the vertices, a user's interactions r the signal. With R̃ = D_U^-½ R D_I^-½, P = R̃ᵀR̃ and its eigenvectors V,
an item direction of singular value σ has the graph frequency 1 − σ²: what is popular and shared is low, what tells
neighbours apart is high.

References:
    Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021 (arXiv 2108.07567): GF-CF.
    Park, Shin and Kim, "Turbo-CF: matrix decomposition-free graph filtering for fast recommendation", SIGIR 2024
        (arXiv 2404.14243): the asymmetric normalisation, and the three polynomials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg
import torch

from distill.baselines.base import Baseline, from_histories
from distill.baselines.randomized_svd import largest_right_vectors
from distill.errors import SettingError
from distill.graph.adjacency import degree_normalization, degree_powers

Band = Literal["low", "high", "all"]
Scores = npt.NDArray[np.float32]

GFCF_RANK = 256
"""Of the public code of GF-CF."""
MAX_EXACT = 6000
"""Users or items, whichever are fewer, up to which the whole eigenbasis is computed: 8 n² bytes, O(n³) time."""
GRAM_MAX_BYTES = 2**30
BASIS_MAX_BYTES = 4 * 2**30
"""Of the vectors that Lanczos keeps."""
BLOCK_FROM = 50_000
"""Users or items, whichever are fewer, from which vectors are found as a block, and no longer one by one."""
CHUNK = 512
"""Histories that are filtered at once."""
SPARSE_COST = 30
"""A multiplication within a product of two sparse matrices costs as much as these of a sparse and a dense one."""
GRAM_COST, CUBE_COST = 0.5, 0.08
"""The same of a sparse with the dense item–item matrix, which needs no transposing, and of two dense ones."""
TURBO_POLYNOMIALS: dict[int, tuple[float, ...]] = {1: (1.0,), 2: (2.0, -1.0), 3: (0.71, 0.1, -0.01)}
"""Degree → coefficients of P, P², P³ (Turbo-CF's linear, second-order and third-order filter)."""


@dataclass(frozen=True)
class SingularBasis:
    """Right singular vectors of R̃ whose singular value is above 0.

    Attributes:
        values: σ, descending, float64 of shape (r,).
        items: One vector a column, orthonormal, float32 of shape (|I|, r).
    """

    values: npt.NDArray[np.float64]
    items: Scores


@dataclass(frozen=True)
class GraphFilter:
    """A function of P applied to histories.

    Attributes:
        apply: Histories, CSR of ones (B, |I|) → (B, |I|).
        num_bytes: What it keeps.
    """

    apply: Callable[[sp.csr_matrix], Scores]
    num_bytes: int


def singular_basis(train: sp.csr_matrix, rank: int, seed: int = 0) -> SingularBasis:
    """Compute the item singular vectors of R̃ with the largest singular values: its lowest frequencies.

    By Lanczos, some tens of products with R̃ᵀR̃ a vector and O(n rank²) to keep them orthogonal, n the smaller of |U| and
    |I|; memory 24 n rank bytes. Where a quarter of all n are wanted, the dense n × n problem is quicker, and from
    `BLOCK_FROM` on `largest_right_vectors`.

    Args:
        train: R, CSR of ones, shape (|U|, |I|).
        rank: Vectors; a basis of fewer is its first columns.
        seed: Of the vector that Lanczos starts from.

    Raises:
        SettingError: `rank` is below 1, or its vectors take more than `BASIS_MAX_BYTES`.
    """
    _require_rank(rank)
    needed = 24 * min(train.shape) * min(rank, *train.shape)
    if needed > BASIS_MAX_BYTES:
        raise SettingError(
            f"rank: {rank} singular vectors of {min(train.shape):,} need {needed:,} bytes, and {BASIS_MAX_BYTES:,} are "
            "allowed; take fewer, or leave out what needs them (gfcf)"
        )
    normalized = degree_normalization(train, 0.5, 0.5).astype(np.float64)
    if 4 * rank >= min(train.shape):
        whole = _whole_basis(normalized)
        return SingularBasis(whole.values[:rank], whole.items[:, :rank])
    rng = np.random.default_rng(seed)
    if min(train.shape) >= BLOCK_FROM:
        largest, items = largest_right_vectors(normalized, rank, rng)
        return SingularBasis(largest, items)
    start = rng.standard_normal(min(train.shape))
    _, values, rows = scipy.sparse.linalg.svds(normalized, k=rank, v0=start, return_singular_vectors="vh")
    order = np.argsort(-values)
    return _above_zero(values[order], rows[order].T)


def _whole_basis(normalized: sp.csr_matrix) -> SingularBasis:
    """All singular vectors, by the eigenvectors of the smaller Gram matrix, in float64."""
    by_items = normalized.shape[1] <= normalized.shape[0]
    side = normalized.T.tocsr() if by_items else normalized
    size = side.shape[0]
    if size > MAX_EXACT:
        raise SettingError(
            f"band: {size:,} of the fewer of users and items exceed the {MAX_EXACT:,} of a whole eigenbasis; "
            "take the band 'low', or a smaller data set"
        )
    squares, vectors = scipy.linalg.eigh((side @ side.T).toarray(), overwrite_a=True, check_finite=False, driver="evd")
    values, vectors = np.sqrt(squares[::-1].clip(min=0)), vectors[:, ::-1]
    if by_items:
        return _above_zero(values, vectors)
    kept = values > _smallest(values)
    return SingularBasis(values[kept], ((normalized.T @ vectors[:, kept]) / values[kept]).astype(np.float32))


def _above_zero(values: npt.NDArray[np.float64], items: npt.NDArray[np.float64]) -> SingularBasis:
    kept = values > _smallest(values)
    return SingularBasis(values[kept], items[:, kept].astype(np.float32))


def _smallest(values: npt.NDArray[np.float64]) -> float:
    """What σ of 0 is rounded to at most: σ² errs by n ε."""
    return float(np.sqrt(len(values) * np.finfo(np.float64).eps))


def polynomial_filter(train: sp.csr_matrix, alpha: float, coefficients: tuple[float, ...]) -> GraphFilter:
    """Make Σ_k c_k P^k of P = R̃ᵀR̃ with R̃ = D_U^-α R D_I^-(1−α), applied the cheaper way.

    Through users, r P = (r R̃ᵀ) R̃, in sparse products: a history costs the items of all users who share one with it, and
    2 nnz(R) operations for each further power; 16 nnz(R) bytes are kept. Or by the dense item–item matrix of the
    polynomial, where it takes no more than `GRAM_MAX_BYTES`: 4 |I|² bytes, |I| operations for each item of a history,
    and for each further power |I|³ once.

    Args:
        train: R, CSR of ones, shape (|U|, |I|).
        alpha: From 0 to 1.
        coefficients: Of P, P², ….

    Raises:
        SettingError: α is outside.
    """
    if not 0 <= alpha <= 1:
        raise SettingError(f"alpha: {alpha} is not from 0 to 1")
    normalized = degree_normalization(train, alpha, 1 - alpha)
    if _is_dense_cheaper(train, len(coefficients)):
        weights = _dense_polynomial(normalized, coefficients)
        return GraphFilter(lambda histories: histories @ weights, weights.nbytes)
    user_items, item_users = normalized, normalized.T.tocsr()

    def apply(histories: sp.csr_matrix) -> Scores:
        scores = _through_users(histories * np.float32(coefficients[-1]), user_items, item_users)
        for coefficient in coefficients[-2::-1]:  # Horner
            scores += (histories * np.float32(coefficient)).toarray()
            scores = (item_users @ (user_items @ scores.T)).T
        return scores

    num_bytes = sum(part.nbytes for each in (user_items, item_users) for part in (each.data, each.indices, each.indptr))
    return GraphFilter(lambda histories: _in_chunks(apply, histories), num_bytes)


def _is_dense_cheaper(train: sp.csr_matrix, degree: int) -> bool:
    """Compare what scoring all training users costs through users, and by a dense item–item matrix with its making."""
    num_users, num_items = train.shape
    if 4 * num_items**2 > GRAM_MAX_BYTES:
        return False
    users_of, items_of = np.bincount(train.indices, minlength=num_items), np.diff(train.indptr)
    reached = float(users_of @ (train.T @ items_of.astype(np.float64)))  # items of the users who share one, over users
    once = float(num_users) * train.nnz
    through_users = min(SPARSE_COST * reached, once) + 2 * (degree - 1) * once
    by_items = GRAM_COST * train.nnz * num_items + (degree - 1) * CUBE_COST * num_items**3
    return bool(by_items < through_users)


def _dense_polynomial(normalized: sp.csr_matrix, coefficients: tuple[float, ...]) -> Scores:
    item_users = normalized.T.tocsr()
    gram = np.empty((normalized.shape[1],) * 2, dtype=np.float32)
    for start in range(0, len(gram), CHUNK):
        gram[start : start + CHUNK] = (item_users[start : start + CHUNK] @ normalized).toarray()
    weights = gram * np.float32(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        np.fill_diagonal(weights, weights.diagonal() + np.float32(coefficient))
        weights = weights @ gram
    return weights


def _through_users(histories: sp.csr_matrix, user_items: sp.csr_matrix, item_users: sp.csr_matrix) -> Scores:
    """(r R̃ᵀ) R̃, its second product dense where the first reaches most users."""
    reached = histories @ item_users
    if SPARSE_COST * reached.nnz < reached.shape[0] * reached.shape[1]:
        sparse: Scores = (reached @ user_items).toarray()
        return sparse
    dense: Scores = (item_users @ np.ascontiguousarray(reached.toarray().T)).T
    return dense


def _in_chunks(apply: Callable[[sp.csr_matrix], Scores], histories: sp.csr_matrix) -> Scores:
    scores = np.empty(histories.shape, dtype=np.float32)
    for start in range(0, len(scores), CHUNK):
        scores[start : start + CHUNK] = apply(histories[start : start + CHUNK])
    return scores


def projection_filter(train: sp.csr_matrix, vectors: Scores) -> GraphFilter:
    """Make r D_I^-½ V Vᵀ D_I^½: 2 |I| r operations a history, 4 |I| (r + 2) bytes.

    Args:
        train: R, CSR of ones, shape (|U|, |I|).
        vectors: V, orthonormal columns, shape (|I|, r).
    """
    degrees = np.bincount(train.indices, minlength=train.shape[1])
    shrink, grow = (degree_powers(degrees, exponent).astype(np.float32) for exponent in (-0.5, 0.5))

    def apply(histories: sp.csr_matrix) -> Scores:
        scaled = histories.astype(np.float32)  # a copy
        scaled.data *= shrink[scaled.indices]
        scores: Scores = ((scaled @ vectors) @ vectors.T) * grow
        return scores

    return GraphFilter(apply, vectors.nbytes + shrink.nbytes + grow.nbytes)


def gf_cf(
    train: sp.csr_matrix,
    rank: int,
    ideal_weight: float,
    *,
    basis: SingularBasis | None = None,
    linear: GraphFilter | None = None,
) -> Baseline:
    """Score by a linear and an ideal low-pass filter: r (R̃ᵀR̃ + w D_I^-½ V Vᵀ D_I^½), V the `rank` lowest frequencies.

    The public code takes rank 256 and w 0.3. Costs are those of `singular_basis`, `polynomial_filter` and
    `projection_filter`.

    Args:
        train: R, CSR of ones, shape (|U|, |I|).
        rank: Columns of V; fewer where R̃ has fewer.
        ideal_weight: w, not negative.
        basis: Of `rank` or more, where it is known; computed when None.
        linear: `polynomial_filter(train, 0.5, (1.0,))`, where it is known.

    Raises:
        SettingError: `rank` is below 1 or w negative.
    """
    if ideal_weight < 0:
        raise SettingError(f"ideal_weight: {ideal_weight} is negative")
    known = singular_basis(train, rank) if basis is None else basis
    plain = polynomial_filter(train, 0.5, (1.0,)) if linear is None else linear
    ideal = projection_filter(train, np.ascontiguousarray(known.items[:, :rank]))

    def score_histories(histories: sp.csr_matrix) -> Scores:
        scores = ideal.apply(histories)
        scores *= np.float32(ideal_weight)
        scores += plain.apply(histories)
        return scores

    return from_histories(train, score_histories, plain.num_bytes + ideal.num_bytes)


def turbo_cf(train: sp.csr_matrix, alpha: float, degree: int) -> Baseline:
    """Score by a polynomial low-pass filter, without eigenvectors: r P, r (2P − P²), or r (0.71 P + 0.1 P² − 0.01 P³).

    P = R̃ᵀR̃ with R̃ = D_U^-α R D_I^-(1−α). Turbo-CF also raises P to a power element by element; that needs the item–item
    matrix, |I|² numbers, and is left out. α 0.5 and degree 1 are the linear part of `gf_cf`. Costs are those of
    `polynomial_filter`.

    Args:
        train: R, CSR of ones, shape (|U|, |I|).
        alpha: From 0 to 1; above a half, long histories count less and popular items more.
        degree: 1, 2 or 3.

    Raises:
        SettingError: One of them is outside.
    """
    if degree not in TURBO_POLYNOMIALS:
        raise SettingError(f"degree: {degree} is not one of {', '.join(map(str, TURBO_POLYNOMIALS))}")
    polynomial = polynomial_filter(train, alpha, TURBO_POLYNOMIALS[degree])
    return from_histories(train, polynomial.apply, polynomial.num_bytes)


def ideal_filter(train: sp.csr_matrix, rank: int, band: Band = "low") -> Baseline:
    """Score by one band of frequencies and nothing else: r D_I^-½ V_S V_Sᵀ D_I^½, for ablations.

    Args:
        train: R, CSR of ones, shape (|U|, |I|).
        rank: Vectors in S; fewer where R̃ has fewer.
        band: "low" for the largest σ, "high" for the smallest above 0, "all" for every so manieth over all of them. The
            latter two need the whole eigenbasis.

    Raises:
        SettingError: `rank` is below 1, the band is unknown, or the whole eigenbasis is needed and both users and items
            are more than `MAX_EXACT`.
    """
    if band not in ("low", "high", "all"):
        raise SettingError(f"band: '{band}' is not one of low, high, all")
    _require_rank(rank)
    if band == "low":
        vectors = singular_basis(train, rank).items
    else:
        whole = _whole_basis(degree_normalization(train, 0.5, 0.5).astype(np.float64)).items
        count = min(rank, whole.shape[1])
        chosen = np.linspace(0, whole.shape[1] - 1, count).round().astype(np.int64)
        vectors = np.ascontiguousarray(whole[:, -count:] if band == "high" else whole[:, chosen])
    projection = projection_filter(train, vectors)
    plain = from_histories(train, projection.apply, projection.num_bytes)
    return replace(plain, factors=partial(_projection_factors, train, vectors))


def _projection_factors(train: sp.csr_matrix, vectors: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    """R D_I^-½ V and D_I^½ V, whose products `projection_filter` makes."""
    degrees = np.bincount(train.indices, minlength=train.shape[1])
    shrink, grow = (degree_powers(degrees, exponent).astype(np.float32) for exponent in (-0.5, 0.5))
    users = train.astype(np.float32) @ (vectors * shrink[:, None])
    return torch.from_numpy(users), torch.from_numpy(vectors * grow[:, None])


def _require_rank(rank: int) -> None:
    if rank < 1:
        raise SettingError(f"rank: {rank} is below 1")
