"""Full ranking: the best k of the whole catalogue, exactly, in chunks, at little more than the cost of its scores.

Selecting k of |I| scores a row by a heap or a partition costs several times the matrix product that made them
where d is small. Here the catalogue is cut into groups of `GROUP` columns. A group that holds one of the k
best scores has one of the k highest maxima (were its maximum below k others, so would be all its scores), so
only the columns of k groups are compared. Taking maxima is a single pass over a chunk that is still in cache.

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
import torch.nn.functional as F
from tqdm import tqdm

from distill.errors import NotFiniteError
from distill.evaluation.metrics import Rows

ScoreRows = Callable[[Rows], torch.Tensor | npt.NDArray[Any]]
"""Users (B,) → their scores (B, |I|): a model that is not an inner product."""
Ties = Literal["drawn", "row"]
CHUNK_BYTES = 32 * 2**20
GROUP = 64
TIE_SEED = 0


def drawn_order(num_items: int) -> Rows:
    """The order in which equal scores are ranked: all item rows, shape (|I|,), the same each time."""
    rng = np.random.default_rng(TIE_SEED)
    return rng.permutation(num_items)


def rank_items(
    user_embeddings: torch.Tensor,
    item_embeddings: torch.Tensor,
    masked: sp.csr_matrix,
    users: Rows,
    k: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = False,
) -> Rows:
    """Rank the catalogue for some users by inner products.

    Args:
        user_embeddings: Shape (|U|, d); its device and type do the work.
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
    order = drawn_order(len(item_embeddings))
    vectors, columns = user_embeddings.detach(), item_embeddings.detach()[torch.from_numpy(order)].T

    def write(rows: Rows, scores: torch.Tensor) -> None:
        torch.matmul(vectors[torch.from_numpy(rows).to(vectors.device)], columns, out=scores)

    blank = vectors.new_empty(0)
    return _rank(write, _top, blank, masked, users, k, order, chunk_bytes=chunk_bytes, progress=progress)[0]


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
    return _rank(write, _stable_top, blank, masked, users, k, order, chunk_bytes=chunk_bytes, progress=progress)[0]


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
    return _rank(write, _top, torch.empty(0), masked, users, k, order, progress=True, title=title)


def _writer(score_rows: ScoreRows, order: Rows | None) -> Callable[[Rows, torch.Tensor], None]:
    columns = slice(None) if order is None else torch.from_numpy(order)

    def write(rows: Rows, scores: torch.Tensor) -> None:
        scores.copy_(torch.as_tensor(score_rows(rows))[:, columns])

    return write


def _rank(
    write: Callable[[Rows, torch.Tensor], None],
    top: Callable[[torch.Tensor, int], torch.Tensor],
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
    # Whole groups and one for the rest, which also keeps every row of the chunk aligned for the product.
    width = GROUP * (num_items // GROUP + 1)
    chunk = max(1, chunk_bytes // (width * blank.element_size()))
    buffer = blank.new_empty(min(chunk, len(users)), width)
    hidden = masked[users]
    hidden_columns = hidden.indices if order is None else np.argsort(order)[hidden.indices]
    ranked = np.empty((len(users), k), dtype=np.int64)
    values = np.empty((len(users), k), dtype=np.float32)
    starts = range(0, len(users), chunk)
    for start in tqdm(starts, desc=title, unit="chunk", disable=None if progress else True, leave=False):
        rows = users[start : start + chunk]
        scores = buffer[: len(rows)]
        write(rows, scores[:, :num_items])
        bounds = hidden.indptr[start : start + len(rows) + 1]
        owners = np.repeat(np.arange(0, len(rows) * width, width), np.diff(bounds))
        places = torch.from_numpy(owners + hidden_columns[bounds[0] : bounds[-1]])
        scores.view(-1)[places.to(scores.device)] = -torch.inf
        found = _top_columns(scores, num_items, k, top)
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


def _top(values: torch.Tensor, k: int) -> torch.Tensor:
    """Columns of the k highest of each row; torch leaves open which of several equal ones."""
    return values.topk(k, dim=1).indices


def _stable_top(values: torch.Tensor, k: int) -> torch.Tensor:
    """Columns of the k highest of each row, equal ones from left to right."""
    return values.sort(dim=1, descending=True, stable=True).indices[:, :k]


def _top_columns(
    scores: torch.Tensor, num_items: int, k: int, top: Callable[[torch.Tensor, int], torch.Tensor]
) -> torch.Tensor:
    """Columns of the k highest among the first `num_items` scores of each row, best first.

    Equal scores: x in group g is among the k first, from left to right, only if fewer than k groups have a higher
    maximum, or the same one further left; so this is stable where `top` is.

    Args:
        scores: Contiguous, shape (B, W) with W = GROUP · (num_items // GROUP + 1).
        num_items: |I|.
        k: At most |I|.
        top: `_top` or `_stable_top`.

    Returns:
        int64, shape (B, k).
    """
    num_rows, full = len(scores), num_items // GROUP
    if full <= k:
        return top(scores[:, :num_items], k)
    maxima = scores.view(num_rows, full + 1, GROUP)[:, :full].amax(dim=2)
    # The last group is not full, so it is always looked at, and cut off where the catalogue ends.
    groups = F.pad(top(maxima, k).sort(dim=1).values, (0, 1), value=full)
    first_group = torch.arange(0, num_rows * (full + 1), full + 1, device=scores.device)
    found = scores.view(-1, GROUP).index_select(0, (first_group[:, None] + groups).view(-1)).view(num_rows, -1)
    best = top(found[:, : k * GROUP + num_items % GROUP], k)
    return groups.gather(1, best // GROUP) * GROUP + best % GROUP
