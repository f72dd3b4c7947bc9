"""Ranking by inner products in tiles: some hundred users against some thousand items at a time, with a running top k.

A chunk of whole rows holds few users where there are many items (8 of a million in 32 MiB), and a product of 8 rows
reads each item's vector from memory for 16 d operations. A tile's vectors are read once for hundreds of users, and its
scores never leave the cache. After the first tile few scores are above the k-th best so far, so that merging them
costs little: in a drawn order of items, about k ln(|I| / k) a user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from tqdm import tqdm

from distill.evaluation.metrics import Rows
from distill.evaluation.selection import columns_above, padded_width, stable_top, top_columns

Embeddings = torch.Tensor | npt.NDArray[Any]
"""Shape (N, d). An array may be mapped and of float16: the rows that are needed are read, and become float32."""
TILE_USERS = 256
TILE_ITEMS = 8192
"""Of those tried (64 to 512 users, 4,096 to 65,536 items) the quickest at d = 20 and 256 over 300,000 and 1,000,000
items; 8 MiB of scores."""
SLOW_SECONDS = 2.0
"""A bar is shown from here on."""


def take_rows(embeddings: Embeddings, rows: Rows) -> torch.Tensor:
    """Read rows, shape (len(rows), d), on the device and of the type of a tensor; an array's float16 as float32."""
    if isinstance(embeddings, torch.Tensor):
        return embeddings.detach()[torch.from_numpy(rows).to(embeddings.device)]
    taken = embeddings[rows]
    return torch.from_numpy(taken.astype(np.float32) if taken.dtype == np.float16 else np.asarray(taken))


def rank_in_tiles(
    user_embeddings: Embeddings,
    item_embeddings: Embeddings,
    masked: sp.csr_matrix,
    users: Rows,
    k: int,
    order: Rows,
    *,
    tile_users: int = TILE_USERS,
    tile_items: int = TILE_ITEMS,
    progress: bool = False,
    title: str = "ranking",
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Rank the catalogue for some users by inner products; equal scores in `order`.

    Args:
        user_embeddings: Shape (|U|, d).
        item_embeddings: Shape (|I|, d).
        masked: Items never to be returned, CSR of shape (|U|, |I|).
        users: Row numbers, shape (B,).
        k: Length of the lists, at most |I|.
        order: All item rows, as equal scores are to be ranked, shape (|I|,).
        tile_users: Rows of a tile.
        tile_items: Its columns, a multiple of `GROUP` and at least k.
        progress: Show a bar.
        title: Of the bar.

    Returns:
        Item rows, best first, and their scores, NaN and −∞ of masked ones: shape (B, k) each. Where fewer than k items
        are left, masked ones fill the end.
    """
    blank = _wide(take_rows(user_embeddings, users[:0]))
    best = blank.new_full((len(users), k), -torch.inf)
    columns = torch.zeros((len(users), k), dtype=torch.long, device=blank.device)
    width = padded_width(min(tile_items, len(order)))
    buffer = blank.new_empty(min(tile_users, len(users)), width)
    hidden = _Hidden(masked[users], order, tile_items)
    starts = range(0, len(order), tile_items)
    total = len(starts) * -(-len(users) // tile_users)
    with tqdm(
        total=total, desc=title, unit="tile", delay=SLOW_SECONDS, disable=None if progress else True, leave=False
    ) as bar:
        for tile, first in enumerate(starts):
            vectors = _wide(take_rows(item_embeddings, order[first : first + tile_items])).T
            for start in range(0, len(users), tile_users):
                block = slice(start, min(start + tile_users, len(users)))
                scores = buffer[: block.stop - start]
                scores[:, vectors.shape[1] :] = -torch.inf
                asking = _wide(take_rows(user_embeddings, users[block]))
                torch.matmul(asking, vectors, out=scores[:, : vectors.shape[1]])
                hidden.apply(scores, tile, block)
                if first:
                    _merge(best[block], columns[block], scores, first)
                else:
                    columns[block] = top_columns(scores, vectors.shape[1], k, stable_top)
                    best[block] = scores.gather(1, columns[block])
                bar.update()
    return order[columns.cpu().numpy()], best.float().cpu().numpy()


def _wide(vectors: torch.Tensor) -> torch.Tensor:
    """Processors multiply half precision slowly, and round each sum to it."""
    is_narrow = vectors.dtype in {torch.float16, torch.bfloat16} and vectors.device.type == "cpu"
    return vectors.float() if is_narrow else vectors


class _Hidden:
    """The masked items of each tile and block of users."""

    def __init__(self, masked: sp.csr_matrix, order: Rows, tile_items: int) -> None:
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        columns = places[masked.indices]
        by_tile = np.argsort(columns // tile_items, kind="stable")  # users rise within a tile, as in the CSR
        self._columns = columns[by_tile] % tile_items
        self._owners = np.repeat(np.arange(masked.shape[0]), np.diff(masked.indptr))[by_tile]
        counts = np.bincount(columns // tile_items, minlength=-(-len(order) // tile_items))
        self._bounds = np.concatenate([[0], np.cumsum(counts)])

    def apply(self, scores: torch.Tensor, tile: int, block: slice) -> None:
        """Set scores to −∞ in place: shape (users of the block, W)."""
        first, last = self._bounds[tile : tile + 2]
        start, stop = first + np.searchsorted(self._owners[first:last], [block.start, block.stop])
        places = (self._owners[start:stop] - block.start) * scores.shape[1] + self._columns[start:stop]
        scores.view(-1)[torch.from_numpy(places).to(scores.device)] = -torch.inf


def _merge(best: torch.Tensor, columns: torch.Tensor, scores: torch.Tensor, first: int) -> None:
    """Let the scores of a tile into the best so far, in place; among equal ones the earlier stay.

    Args:
        best: Falling, shape (B, k).
        columns: Theirs, shape (B, k).
        scores: Of the tile, shape (B, W).
        first: The tile's first column.
    """
    # Once something is not finite, all is refused at the end: no more of it is needed.
    bar = best[:, -1].nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    rows, places = columns_above(scores, bar)
    if not len(rows):
        return
    counts = torch.bincount(rows, minlength=len(best))
    number = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    shape = (len(best), int(counts.max()))
    values, found = best.new_full(shape, -torch.inf), columns.new_zeros(shape)
    values[rows, number], found[rows, number] = scores[rows, places], places + first
    values, found = torch.cat([best, values], dim=1), torch.cat([columns, found], dim=1)
    sorted_values, at = values.sort(dim=1, descending=True, stable=True)
    best.copy_(sorted_values[:, : best.shape[1]])
    columns.copy_(found.gather(1, at[:, : best.shape[1]]))
