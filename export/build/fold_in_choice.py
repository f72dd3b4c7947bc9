"""Choosing how to fold in by measurement: the two settings of the fit, and how far recent items move a known user.

For the settings, on users whom the fit has not seen, what counts is Recall@20 on their validation items of users
rebuilt from their training items, averaged over whole histories and histories cut short, because new users come with
few items. For the step, half of a user's validation items are the recent ones, the other half is to be found: where
tastes drift a long step pays, where they do not a short one.

Both are bounded for large data: beyond `GRID_NUMBERS` the grid is searched along λ, then along c, 7 fits instead of 16,
and beyond `RANKED_NUMBERS` fewer users measure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from distill.graph.adjacency import row_numbers
from export.build.fold_in import FoldInProblem, FoldInSettings, fold_in
from export.build.quality import measure_quality

SHRINKAGES = (0.01, 0.1, 1.0, 10.0)
DROPPED = (0.3, 1.0, 3.0, 10.0)
GRID_NUMBERS = 2 * 10**8
"""d nnz(R) from which not the whole grid is fitted: there it takes a minute and more."""
SAMPLED_USERS = 500
SAMPLED_SHARE = 0.2
"""Most of the users to leave out of a fit, so that it resembles the one that counts."""
SHORT = (3, 10)
"""Numbers of items to which histories are cut."""
RECALL = "validation_recall@20"

RECENT_STEPS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Factors of the step by which a fold-in moves when recent items join."""
MOVED_USERS = 2000
RANKED_NUMBERS, FEWEST_USERS = 5 * 10**10, 100
"""Numbers of items that all users' rankings under one setting may read, and the users there are in any case."""

Measured = Mapping[str, float]


def choose_settings(
    item_embeddings: npt.NDArray[Any],
    user_embeddings: npt.NDArray[Any],
    train: sp.csr_matrix,
    validation: sp.csr_matrix,
    rng: np.random.Generator,
) -> tuple[FoldInSettings, dict[str, Any]]:
    """Choose λ and c on a sample of users, left out of the fits.

    Args:
        item_embeddings: Shape (I, d).
        user_embeddings: Shape (U, d).
        train: CSR of shape (U, I); the histories.
        validation: CSR of shape (U, I); what should be found.
        rng: Draws the sample, and the items of short histories.

    Returns:
        The settings, and for the manifest: recall@20 of the sampled users' whole and short histories, that of their
        trained vectors, and their number. Without validation items, the default settings and no recall.
    """
    users = np.flatnonzero((np.diff(train.indptr) > 0) & (np.diff(validation.indptr) > 0))
    if len(users) < 2:
        return FoldInSettings(), {"validation_users": 0}
    size = min(SAMPLED_USERS, max(1, int(SAMPLED_SHARE * len(users))), _rankable(item_embeddings))
    users = np.sort(rng.choice(users, size=size, replace=False))
    others = np.setdiff1d(np.arange(train.shape[0]), users)
    whole, wanted = train[users], validation[users]
    histories = {RECALL: whole} | {f"{RECALL}_of_{length}": cut_histories(whole, length, rng) for length in SHORT}
    problem = FoldInProblem(train[others], user_embeddings[others])

    def recall(vectors: npt.NDArray[Any]) -> float:
        return float(measure_quality(vectors, item_embeddings, whole, wanted)["recall@20"])

    def measure(settings: FoldInSettings) -> Measured:
        table = problem.solve(settings)
        vectors = {name: fold_in(cut, table) for name, cut in histories.items()}
        return {name: recall(folded) for name, folded in vectors.items()}

    numbers = train.nnz * item_embeddings.shape[1]
    if numbers >= GRID_NUMBERS:
        tqdm.write(
            f"fold-in: 7 of 16 settings are fitted, because of {numbers:.1e} numbers in the histories, and measured on "
            f"{size:,} users",
            file=sys.stderr,
        )
    best, measured = _search(measure, whole_grid=numbers < GRID_NUMBERS)
    trained = recall(user_embeddings[users])
    return best, {"validation_users": size, **measured, f"trained_vectors_{RECALL}": trained}


def _search(measure: Callable[[FoldInSettings], Measured], *, whole_grid: bool) -> tuple[FoldInSettings, Measured]:
    """The settings of the highest recalls and these; without the whole grid, λ is chosen for the default c, then c."""
    number = len(SHRINKAGES) * len(DROPPED) if whole_grid else len(SHRINKAGES) + len(DROPPED) - 1
    measured: dict[FoldInSettings, Measured] = {}
    with tqdm(total=number, desc="fold-in", unit="setting", disable=None, leave=False) as bar:

        def best_of(settings: Iterable[tuple[float, float]]) -> FoldInSettings:
            tried = [FoldInSettings(*pair) for pair in settings]
            for each in tried:
                if each not in measured:
                    measured[each] = measure(each)
                    bar.update()
            return max(tried, key=lambda each: sum(measured[each].values()))

        if whole_grid:
            best = best_of(product(SHRINKAGES, DROPPED))
        else:
            first = best_of((shrinkage, FoldInSettings.dropped) for shrinkage in SHRINKAGES)
            best = best_of((first.shrinkage, dropped) for dropped in DROPPED)
    return best, measured[best]


def _rankable(item_embeddings: npt.NDArray[Any]) -> int:
    return max(RANKED_NUMBERS // max(1, item_embeddings.size), FEWEST_USERS)


def choose_recent_step(
    item_embeddings: npt.NDArray[Any],
    user_embeddings: npt.NDArray[Any],
    table: npt.NDArray[Any],
    train: sp.csr_matrix,
    validation: sp.csr_matrix,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Choose the factor of the step.

    Args:
        item_embeddings: Shape (I, d).
        user_embeddings: Shape (U, d).
        table: The fold-in table, shape (I, d).
        train: CSR of shape (U, I); what users have.
        validation: CSR of shape (U, I); what joins, and what should be found.
        rng: Draws the users, and which items join.

    Returns:
        For the manifest: `recent_step`, and where users have two validation items or more, Recall@20 with it and
        without any step; the factor is 1 without such users.
    """
    users = np.flatnonzero((np.diff(train.indptr) > 0) & (np.diff(validation.indptr) > 1))
    if not len(users):
        return {"recent_step": 1.0}
    users = np.sort(rng.choice(users, size=min(MOVED_USERS, len(users), _rankable(item_embeddings)), replace=False))
    had, later = train[users], validation[users]
    joins = 2 * _random_ranks(later, rng) < np.repeat(np.diff(later.indptr), np.diff(later.indptr)) - 1
    recent, wanted = _select(later, joins), _select(later, ~joins)
    has = (had + recent).tocsr()
    steps = recent_steps(user_embeddings[users], had, has, table)
    found = {
        factor: measure_quality(user_embeddings[users] + factor * steps, item_embeddings, has, wanted)["recall@20"]
        for factor in RECENT_STEPS
    }
    best = max(RECENT_STEPS, key=found.__getitem__)
    return {"recent_step": best, f"recent_{RECALL}": found[best], f"unmoved_{RECALL}": found[0.0]}


def recent_steps(
    vectors: npt.NDArray[Any], before: sp.csr_matrix, after: sp.csr_matrix, table: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """How a server moves trained vectors, before any factor: as far as the fold-in moves, in the vectors' length.

    Args:
        vectors: Shape (B, d).
        before: CSR of ones, shape (B, I).
        after: Likewise, with the recent items.
        table: The fold-in table, shape (I, d).

    Returns:
        Shape (B, d).
    """
    reference = fold_in(before, table)
    lengths = np.linalg.norm(reference, axis=1, keepdims=True)
    scale = np.linalg.norm(vectors, axis=1, keepdims=True) / np.where(lengths > 0, lengths, 1)
    steps: npt.NDArray[np.float32] = scale * (fold_in(after, table) - reference)
    return steps


def cut_histories(histories: sp.csr_matrix, length: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Keep at most `length` items of each row, drawn at random; CSR of ones of the same shape."""
    return _select(histories, _random_ranks(histories, rng) < length)


def _random_ranks(histories: sp.csr_matrix, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Each entry's place in a random order of its row, from 0: shape (nnz,)."""
    owners = row_numbers(histories)
    ranks = np.empty(histories.nnz, dtype=np.int64)
    ranks[np.lexsort((rng.random(histories.nnz), owners))] = np.arange(histories.nnz) - histories.indptr[owners]
    return ranks


def _select(histories: sp.csr_matrix, kept: npt.NDArray[np.bool_]) -> sp.csr_matrix:
    """The entries that are kept, mask of shape (nnz,); CSR of ones of the same shape."""
    pairs = (row_numbers(histories)[kept], histories.indices[kept])
    return sp.csr_matrix((np.ones(len(pairs[0]), dtype=np.float32), pairs), shape=histories.shape)
