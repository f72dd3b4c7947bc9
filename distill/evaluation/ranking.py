"""Full ranking: the best k of the whole catalogue, exactly, at little more than the cost of its scores.

Scores are made and compared in chunks of whole rows, or in tiles where the rows are long (`tiles`).

Equal scores: files are often in the order of popularity, so that lower rows first would give a model that knows nothing
(of an item, or of a user without a direction) the quality of one that does. So the catalogue is ranked in one drawn
order, the same for all models and users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from tqdm import tqdm

from distill.errors import NotFiniteError
from distill.evaluation.metrics import Rows
from distill.evaluation.selection import Top, any_top, padded_width, stable_top, top_columns
from distill.evaluation.tiles import SLOW_SECONDS, TILE_ITEMS, Embeddings, rank_in_tiles, take_rows

ScoreRows = Callable[[Rows], torch.Tensor | npt.NDArray[Any]]
"""Users (B,) → their scores (B, |I|): a model that is not an inner product."""
Ties = Literal["drawn", "row"]
CHUNK_BYTES = 32 * 2**20
TILED_FROM = 2**17
"""Items from which on tiles are quicker: a chunk of float32 then holds fewer than 64 users. At 100,000 items both take
the same time; at a million, tiles took a fifth to a third at d = 256 and a third to three quarters at d = 20."""
TIE_SEED = 0


def drawn_order(num_items: int) -> Rows:
    """The order in which equal scores are ranked: all item rows, shape (|I|,), the same each time."""
    rng = np.random.default_rng(TIE_SEED)
    return rng.permutation(num_items)


def rank_items(
    user_embeddings: Embeddings,
    item_embeddings: Embeddings,
    masked: sp.csr_matrix,
    users: Rows,
    k: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = False,
) -> Rows:
    """Rank the catalogue for some users by inner products.

    Args:
        user_embeddings: Shape (|U|, d); a tensor's device and type do the work.
        item_embeddings: Shape (|I|, d).
        masked: Items never to be returned, CSR of shape (|U|, |I|).
        users: Row numbers, shape (B,).
        k: Length of the lists, at most |I|.
        chunk_bytes: Bound on one chunk of scores, bytes.
        progress: Show a bar.

    Returns:
        Item rows, best first, shape (B, k); equal scores without regard to their rows. Where fewer than k items are
        left, masked ones fill the end.

    Raises:
        NotFiniteError: A user's scores are not numbers, or overflow.
    """
    return top_items(user_embeddings, item_embeddings, masked, users, k, chunk_bytes=chunk_bytes, progress=progress)[0]


def top_items(
    user_embeddings: Embeddings,
    item_embeddings: Embeddings,
    masked: sp.csr_matrix,
    users: Rows,
    k: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = False,
    title: str = "ranking",
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Do what `rank_items` does, and keep the scores, −∞ of masked items: shape (B, k) each.

    Raises:
        NotFiniteError: As `rank_items`.
    """
    order = drawn_order(len(item_embeddings))
    if len(order) >= TILED_FROM and k <= TILE_ITEMS // 8:
        found = rank_in_tiles(user_embeddings, item_embeddings, masked, users, k, order, progress=progress, title=title)
        _require_finite(found[1], len(order) - np.diff(masked.indptr)[users])
        return found
    columns = take_rows(item_embeddings, order).T

    def write(rows: Rows, scores: torch.Tensor) -> None:
        torch.matmul(take_rows(user_embeddings, rows), columns, out=scores)

    blank = columns.new_empty(0)
    return _rank(
        write, any_top, blank, masked, users, k, order, chunk_bytes=chunk_bytes, progress=progress, title=title
    )


def rank_alike(item_scores: npt.NDArray[Any], masked: sp.csr_matrix, users: Rows, k: int) -> Rows:
    """Do what `rank_scores` does where all users score items alike, at the cost of their histories and lists.

    Args:
        item_scores: Finite, shape (|I|,).
        masked: As of `rank_scores`.
        users: Likewise.
        k: Likewise.
    """
    order = drawn_order(len(item_scores))
    best_first = order[np.argsort(-item_scores[order], kind="stable")]
    places = np.empty(len(order), dtype=np.int64)
    places[best_first] = np.arange(len(order))
    hidden = masked[users]
    owners = np.repeat(np.arange(len(users)), np.diff(hidden.indptr))
    taken = places[hidden.indices]
    sort = np.lexsort((taken, owners))
    owners, taken = owners[sort], taken[sort]
    # The i-th hidden place p is passed by the j-th item that is left where p − i ≤ j.
    passed_by = taken - (np.arange(len(taken)) - hidden.indptr[owners])
    near = passed_by < k
    passed = np.bincount(owners[near] * k + passed_by[near], minlength=len(users) * k).reshape(len(users), k)
    wanted = np.arange(k) + passed.cumsum(axis=1)
    ranked: Rows = best_first[np.minimum(wanted, len(order) - 1)]
    for row in np.flatnonzero(wanted[:, -1] >= len(order)):  # masked ones fill the end
        drawn = order[np.isin(order, hidden[row].indices)]
        ranked[row, wanted[row] >= len(order)] = drawn[: (wanted[row] >= len(order)).sum()]
    return ranked


def rank_scores(
    score_rows: ScoreRows,
    masked: sp.csr_matrix,
    users: Rows,
    k: int,
    *,
    ties: Ties = "drawn",
    device: torch.device | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = False,
) -> Rows:
    """Rank the catalogue for some users by any scores, counts among them.

    Args:
        score_rows: The model; it is asked for a chunk of users at a time.
        masked: Items never to be returned, CSR of shape (|U|, |I|).
        users: Row numbers, shape (B,).
        k: Length of the lists, at most |I|.
        ties: How equal scores are ranked: "drawn", as all that is measured, or the lower "row" first, as a server does.
        device: Where scores are compared, in float32; the CPU when None.
        chunk_bytes: Bound on one chunk of scores, bytes.
        progress: Show a bar.

    Returns:
        As `rank_items`.

    Raises:
        NotFiniteError: As `rank_items`.
    """
    blank = torch.empty(0, device=device)
    order = drawn_order(int(masked.shape[1])) if ties == "drawn" else None
    write = _writer(score_rows, order)
    return _rank(write, stable_top, blank, masked, users, k, order, chunk_bytes=chunk_bytes, progress=progress)[0]


def top_scores(
    score_rows: ScoreRows, masked: sp.csr_matrix, k: int, *, title: str = "ranking"
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Rank the catalogue for every user by any scores, and keep the scores: a chunk of rows is in memory at a time.

    Args:
        score_rows: The model.
        masked: Items never to be returned, CSR of shape (|U|, |I|).
        k: Length of the lists, at most |I|.
        title: Of the bar.

    Returns:
        As `rank_items`, and their scores, −∞ of masked ones: shape (|U|, k) each.

    Raises:
        NotFiniteError: As `rank_items`.
    """
    users = np.arange(masked.shape[0], dtype=np.int64)
    order = drawn_order(int(masked.shape[1]))
    write = _writer(score_rows, order)
    return _rank(write, any_top, torch.empty(0), masked, users, k, order, progress=True, title=title)


def _writer(score_rows: ScoreRows, order: Rows | None) -> Callable[[Rows, torch.Tensor], None]:
    columns = slice(None) if order is None else torch.from_numpy(order)

    def write(rows: Rows, scores: torch.Tensor) -> None:
        scores.copy_(torch.as_tensor(score_rows(rows))[:, columns])

    return write


def _rank(
    write: Callable[[Rows, torch.Tensor], None],
    top: Top,
    blank: torch.Tensor,
    masked: sp.csr_matrix,
    users: Rows,
    k: int,
    order: Rows | None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool,
    title: str = "ranking",
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Item rows and their scores, (B, k) each; `order` is that of the items in which `write` writes scores."""
    num_items = int(masked.shape[1])
    width = padded_width(num_items)
    chunk = max(1, chunk_bytes // (width * blank.element_size()))
    buffer = blank.new_empty(min(chunk, len(users)), width)
    hidden = masked[users]
    hidden_columns = hidden.indices if order is None else np.argsort(order)[hidden.indices]
    ranked = np.empty((len(users), k), dtype=np.int64)
    values = np.empty((len(users), k), dtype=np.float32)
    starts = range(0, len(users), chunk)
    quiet = None if progress else True
    for start in tqdm(starts, desc=title, unit="chunk", delay=SLOW_SECONDS, disable=quiet, leave=False):
        rows = users[start : start + chunk]
        scores = buffer[: len(rows)]
        write(rows, scores[:, :num_items])
        bounds = hidden.indptr[start : start + len(rows) + 1]
        owners = np.repeat(np.arange(0, len(rows) * width, width), np.diff(bounds))
        places = torch.from_numpy(owners + hidden_columns[bounds[0] : bounds[-1]])
        scores.view(-1)[places.to(scores.device)] = -torch.inf
        found = top_columns(scores, num_items, k, top)
        ranked[start : start + chunk] = found.cpu().numpy()
        values[start : start + chunk] = scores.gather(1, found).cpu().numpy()
    _require_finite(values, num_items - np.diff(hidden.indptr))
    return (ranked if order is None else order[ranked]), values


def _require_finite(values: npt.NDArray[np.float32], left: npt.NDArray[np.integer[Any]]) -> None:
    """Look at the best scores of each user: NaN and +∞ are among them if they are anywhere, −∞ if all overflow.

    Args:
        values: Best first, −∞ of masked items, shape (B, k).
        left: How many items are not masked, shape (B,).
    """
    bad = (
        np.isnan(values).any(axis=1)
        | (values == np.inf).any(axis=1)
        | ((values[:, :1] == -np.inf).all(axis=1) & (left > 0))
    )
    if bad.any():
        raise NotFiniteError(
            f"scores of {bad.sum():,} of {len(bad):,} users are not finite numbers; train the model again, or scale "
            "its embeddings down"
        )
