"""What the ranking methods share: lists of candidates, by teacher or student, and draws from them for all rows at once.

A row is a user whose candidates are items, or an item whose candidates are users. What a row has interacted with in
training is seen. A row with fewer unseen candidates than a list is long has seen ones at the list's end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import nn

from distill.evaluation.ranking import rank_items

CHUNK_BYTES = 32 * 2**20
GATHERED_BYTES = 2**20
"""A block of gathered rows that a core's own cache holds."""
Lists = npt.NDArray[np.int32]
"""Candidates of every row, best first, shape (R, C)."""
WHOLE_PAIRS = 5 * 10**9
"""Rows times candidates up to which all pairs are scored: a minute of one core at d = 20, two at d = 256."""


def is_whole(num_rows: int, num_candidates: int) -> bool:
    """Say whether a catalogue is small enough to be scored for every row."""
    return num_rows * num_candidates <= WHOLE_PAIRS


def rank_unseen(
    rows: torch.Tensor,
    candidates: torch.Tensor,
    seen: sp.csr_matrix,
    length: int,
    *,
    progress: bool = False,
    whole: bool | None = None,
) -> Lists:
    """Rank what each row has not seen, by inner products.

    Where the pairs are too many to be scored, inverted lists find nearly the same (`distill.methods.item_index`).

    Args:
        rows: Embeddings, shape (R, d).
        candidates: Embeddings, shape (N, d).
        seen: CSR of shape (R, N).
        length: C, cut to N.
        progress: Show a bar.
        whole: Score all pairs, or ask an index; as `is_whole` says when None.

    Returns:
        Shape (R, min(C, N)).
    """
    if not (is_whole(len(rows), len(candidates)) if whole is None else whole):
        from distill.methods.item_index import search_all  # which has `Lists` from here

        return search_all(rows.detach(), candidates.detach(), seen, min(length, len(candidates)), progress=progress)[0]
    everybody = np.arange(len(rows), dtype=np.int64)
    length = min(length, len(candidates))
    return rank_items(rows, candidates, seen, everybody, length, progress=progress).astype(np.int32)


def gathered_scores(own: torch.Tensor, table: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Compute inner products ⟨x_b, y_bk⟩, without a (B, K, d) tensor: rows are gathered a cache's block at a time.

    Args:
        own: x, shape (B, d).
        table: Shape (N, d).
        others: Its rows y_bk, int64 of shape (B, K).

    Returns:
        Shape (B, K), without a gradient.
    """
    (rows, width), dim = others.shape, table.shape[1]
    scores = table.new_empty(rows, 1, width)
    block = max(1, GATHERED_BYTES // (table.element_size() * width * dim))
    buffer = table.new_empty(min(block, rows) * width, dim)
    for start in range(0, rows, block):
        part = others[start : start + block]
        gathered = torch.index_select(table, 0, part.reshape(-1), out=buffer[: part.numel()])
        columns = gathered.view(len(part), width, dim).transpose(1, 2)
        torch.bmm(own[start : start + block, None], columns, out=scores[start : start + block])
    return scores.squeeze(1)


class StudentRanking(nn.Module):
    """What the student puts first, ranked anew every few epochs.

    Either all rows are ranked together when it is due, or, where they are too many for one epoch, a share of them in
    each, so that every row is ranked as often; until its first turn a row has the list that it was given.

    The lists and the count of epochs are in the state: a resumed run goes on with what the straight one has.
    """

    def __init__(self, seen: sp.csr_matrix, length: int, every: int, first: Lists | None = None) -> None:
        """Make room for lists, 4 R C bytes.

        Args:
            seen: What is not to be listed, CSR of shape (R, N).
            length: C, at most N.
            every: Epochs from one ranking to the next.
            first: What rows have before their first turn, shape (R, C), where they are ranked in turns; the first epoch
                ranks all of them when None.
        """
        super().__init__()
        self._seen = seen
        self._every = every
        self._in_turns = first is not None
        lists = torch.zeros(seen.shape[0], length, dtype=torch.int32)
        self.register_buffer("_lists", lists if first is None else torch.from_numpy(np.array(first, dtype=np.int32)))
        self.register_buffer("_epochs", torch.zeros((), dtype=torch.int64))
        self._lists: torch.Tensor
        self._epochs: torch.Tensor

    @property
    def lists(self) -> Lists:
        """Shape (R, C)."""
        lists: Lists = self._lists.cpu().numpy()
        return lists

    @property
    def length(self) -> int:
        """C."""
        return int(self._lists.shape[1])

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Lists of some rows, int32 of shape (B, C)."""
        return self._lists[rows]

    def begin_epoch(self, rows: torch.Tensor, candidates: torch.Tensor) -> bool:
        """Rank what is due, by the student's embeddings (R, d) and (N, d); return whether any list is new."""
        turn = int(self._epochs) % self._every
        self._epochs += 1
        if self._in_turns:
            chosen = np.arange(turn, len(rows), self._every)
            whole = is_whole(len(rows), len(candidates))
            part, seen = rows[torch.from_numpy(chosen).to(rows.device)], self._seen[chosen]
            ranked = rank_unseen(part, candidates, seen, self._lists.shape[1], whole=whole)
            self._lists[chosen] = torch.from_numpy(ranked).to(self._lists.device)
        elif turn == 0:
            self._lists.copy_(torch.from_numpy(rank_unseen(rows, candidates, self._seen, self._lists.shape[1])))
        return self._in_turns or turn == 0


def gumbel_top_k(
    log_weights: npt.NDArray[np.float32], num_rows: int, num_draws: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw ranks without replacement, each draw in proportion to the weights of those left: the Gumbel top-k trick.

    The K first of independent exponential clocks are such a draw (Efraimidis and Spirakis, 2006), so no row waits for
    another; clocks are compared by their logarithms.

    Args:
        log_weights: Of C ranks, shape (R, C), or (1, C) where all rows share them.
        num_rows: R.
        num_draws: K, at most C.
        rng: Source of randomness.

    Returns:
        Rising ranks, shape (R, K).
    """
    length = log_weights.shape[1]
    log_weights = np.broadcast_to(log_weights, (num_rows, length))
    drawn = np.empty((num_rows, num_draws), dtype=np.int64)
    chunk = max(1, CHUNK_BYTES // (4 * length))
    for start in range(0, num_rows, chunk):
        part = log_weights[start : start + chunk]
        clocks = rng.standard_exponential(part.shape, dtype=np.float32)
        # The generator returns 0 now and then, of which there is no logarithm.
        clocks = np.log(np.maximum(clocks, np.finfo(np.float32).tiny)) - part
        first = torch.from_numpy(clocks).topk(num_draws, dim=1, largest=False, sorted=False).indices
        drawn[start : start + chunk] = first.sort(dim=1).values.numpy()
    return drawn


class UniformNegatives:
    """Uniform draws, with replacement, among what a row neither lists nor has seen.

    The r-th candidate left is r plus the number of excluded ones before it, which a search finds: no draw is ever
    rejected. A row that excludes everything draws from all candidates.
    """

    def __init__(self, seen: sp.csr_matrix, lists: Lists) -> None:
        """Index what is excluded: 8 bytes an entry of `seen` and `lists`.

        Args:
            seen: CSR of shape (R, N).
            lists: Shape (R, C).
        """
        num_rows, length = lists.shape
        indptr = np.arange(0, num_rows * length + 1, length)
        listed = sp.csr_matrix((np.ones(lists.size, dtype=np.float32), lists.reshape(-1), indptr), shape=seen.shape)
        excluded = (seen + listed).tocsr()
        excluded.sort_indices()
        degrees = np.diff(excluded.indptr)
        owners = np.repeat(np.arange(num_rows, dtype=np.int64), degrees)
        before = np.arange(excluded.nnz) - excluded.indptr[owners]
        kept = degrees[owners] < seen.shape[1]
        degrees[degrees == seen.shape[1]] = 0
        self._num_left = seen.shape[1] - degrees
        self._starts = np.concatenate([[0], np.cumsum(degrees)])[:-1, None]
        self._offsets = np.arange(num_rows, dtype=np.int64)[:, None] * (seen.shape[1] + 1)
        self._keys = (owners * (seen.shape[1] + 1) + excluded.indices - before)[kept]

    def draw(self, num_draws: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw `num_draws` candidates for every row: in rising order, shape (R, num_draws)."""
        uniform = rng.random((len(self._num_left), num_draws))
        drawn: npt.NDArray[np.int64] = (uniform * self._num_left[:, None]).astype(np.int64)
        # Neighbouring searches in rising order read the same keys: four times as fast.
        drawn.sort(axis=1)
        places = np.searchsorted(self._keys, (self._offsets + drawn).reshape(-1), side="right")
        drawn += places.reshape(drawn.shape) - self._starts
        return drawn


def find_ranks(lists: Lists, wanted: Lists, num_candidates: int) -> Lists:
    """Find the rank, from 0, of each wanted candidate in the row's list.

    Args:
        lists: Shape (R, C), no candidate twice in a row.
        wanted: Shape (R, K).
        num_candidates: N.

    Returns:
        Ranks, C where a candidate is not listed, shape (R, K).
    """
    length = lists.shape[1]
    if num_candidates > lists.size:
        return _find_sorted_ranks(lists, wanted, num_candidates)
    found = np.empty(wanted.shape, dtype=np.int32)
    chunk = max(1, CHUNK_BYTES // (4 * num_candidates))
    table = np.full((min(chunk, len(lists)), num_candidates), length, dtype=np.int32)
    for start in range(0, len(lists), chunk):
        part = lists[start : start + chunk]
        places = table[: len(part)]
        np.put_along_axis(places, part, np.arange(length, dtype=np.int32)[None], axis=1)
        found[start : start + chunk] = np.take_along_axis(places, wanted[start : start + chunk], axis=1)
        np.put_along_axis(places, part, length, axis=1)
    return found


def _find_sorted_ranks(lists: Lists, wanted: Lists, num_candidates: int) -> Lists:
    """`find_ranks` by a sort of all lists: for few rows of a wide catalogue, of which no table is made."""
    offsets = np.arange(len(lists), dtype=np.int64)[:, None] * num_candidates
    keys, sought = (offsets + lists).reshape(-1), (offsets + wanted).reshape(-1)
    order = np.argsort(keys)
    places = order[np.minimum(np.searchsorted(keys, sought, sorter=order), len(keys) - 1)]
    ranks: Lists = np.where(keys[places] == sought, places % lists.shape[1], lists.shape[1]).astype(np.int32)
    return ranks.reshape(wanted.shape)
