"""The first items of many users by inner product, over a catalogue too large to be scored whole for each of them.

Items are parted into inverted lists by k-means, and a user looks into the lists whose centres it scores highest. What
is in them is scored exactly, so nothing is decoded and nothing must be scored again; what is lost is what stands in
other lists, and `build_index` looks into as many as hold `RECALL` of what exact search finds, measured on some users.

A list is read once for a block of thousands of users: a matrix product of those that look into it with its items. Few
of those scores count, so a first pass over each user's nearest lists finds a score that at least K items reach, and the
second keeps nothing below. Items that a user may not get are masked before either.

Cost for B users that look into a share s of the catalogue: 2 s B |I| d operations, s B |I| comparisons, and some
microseconds a user; an index keeps the items once more, in their own type, and 8 bytes an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from tqdm import tqdm

from distill.evaluation.ranking import drawn_order
from distill.methods.candidates import Lists

RECALL = 0.95
"""Of a list, on average over users: what is lost is mostly its end, which hardly teaches."""
MEASURED_USERS = 300
BLOCK_USERS = 8192
CHUNK_USERS = 1024
"""Rows of one product."""
TRAINING_POINTS = 64
"""Items a list that k-means sees."""
ITERATIONS = 8
LISTS = 2
"""Times √|I|: more lists hold what is sought in a smaller share, and each costs a block of users some microseconds."""
MAXIMA = 8
"""Scores of which the first pass keeps the highest: K maxima at or above a score are K items there."""
RANKED_USERS = 256
"""Whose finds are ranked together."""
FOUND = 2**25
"""Scores of a block that are kept before they are thinned to the K best of each user: 12 bytes each."""

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ItemIndex:
    """Inverted lists over items.

    Attributes:
        vectors: The items list by list, of any floating type, shape (|I|, d).
        order: Item rows in that order, shape (|I|,).
        places: Where in it an item row is, shape (|I|,).
        bounds: Where each list begins, and |I|: shape (n + 1,).
        centres: float32, shape (n, d).
        probes: Lists that a user looks into.
        recall: Share of the exact lists that those hold, on average over the users of the measurement.
    """

    vectors: torch.Tensor
    order: Ids
    places: Ids
    bounds: Ids
    centres: torch.Tensor
    probes: int
    recall: float

    def search(
        self, users: torch.Tensor, hidden: sp.csr_matrix, length: int, *, unknown: Ids | None = None
    ) -> tuple[Lists, Scores]:
        """Find the best items of at most `BLOCK_USERS` users.

        Args:
            users: Their vectors, of any floating type, shape (B, d).
            hidden: Items that they may not get, CSR of shape (B, |I|).
            length: K, at most |I|.
            unknown: Item rows in the order in which a user without a direction gets them, shape (|I|,); a drawn one
                when None.

        Returns:
            Item rows, best first, and their scores, shape (B, K) each. Where fewer than K items are left, hidden ones
            with score −∞ fill the end.
        """
        own = users.float().contiguous()
        visits = (own @ self.centres.T).topk(self.probes, dim=1).indices.numpy()
        masked = self._locate(hidden)
        found = _Found(self._least_scores(own, visits, masked, length), length)
        has_direction = own.any(dim=1).numpy()
        for rows, start, scores in self._scan(own, visits, masked):
            found.add(rows, start, scores)
        places, values = found.best()
        items = self.order[places].astype(np.int32)
        for row in np.flatnonzero((values[:, -1] == -np.inf) & has_direction):
            items[row], values[row] = self._search_whole(own[row], hidden[row].indices, length)
        order = drawn_order(len(self.order)) if unknown is None else unknown
        for row in np.flatnonzero(~has_direction):
            items[row], values[row] = _first_left(order, hidden[row].indices, length)
        return items, values

    @property
    def share(self) -> float:
        """Of the catalogue that a user looks into, were all lists equally long."""
        return self.probes / len(self.centres)

    def _search_whole(self, own: torch.Tensor, hidden: npt.NDArray[np.int32], length: int) -> tuple[Lists, Scores]:
        """Of a user whose lists hold too little: score everything."""
        scores = torch.cat([part.float() @ own for part in torch.split(self.vectors, 2**16)])
        scores[torch.from_numpy(self.places[hidden])] = -torch.inf
        values, places = scores.topk(length)
        return self.order[places.numpy()].astype(np.int32), values.numpy()

    def _least_scores(self, own: torch.Tensor, visits: Ids, masked: _Masked, length: int) -> torch.Tensor:
        """A score that at least K items of each user reach: shape (B,); −∞ where the nearest lists hold fewer."""
        groups = np.diff(self.bounds) // MAXIMA
        wanted = int(np.ceil(2.5 * length / max(1.0, groups.mean())))
        visits = visits[:, : max(4, wanted)]
        width = int(groups[visits].sum(axis=1).max())
        if width < length:
            return torch.full((len(own),), -torch.inf)
        maxima = torch.full((len(own), width), -torch.inf)
        filled = torch.zeros(len(own), dtype=torch.int64)
        for rows, _, scores in self._scan(own, visits, masked):
            count = scores.shape[1] // MAXIMA
            best = scores[:, : count * MAXIMA].view(len(rows), count, MAXIMA).amax(dim=2)
            maxima[rows[:, None], filled[rows][:, None] + torch.arange(count)] = best
            filled[rows] += count
        least = maxima.topk(length, dim=1).values[:, -1]
        return torch.nextafter(least, torch.tensor(-torch.inf))

    def _scan(
        self, own: torch.Tensor, visits: Ids, masked: _Masked
    ) -> Iterator[tuple[torch.Tensor, int, torch.Tensor]]:
        """List by list: rows of users that look into it, where it begins, and their scores of it, shape (b, size)."""
        # Numbers of 16 bits are sorted by radix.
        by_list = np.argsort(visits.astype(np.uint16), axis=None, kind="stable") // visits.shape[1]
        ends = np.cumsum(np.bincount(visits.reshape(-1), minlength=len(self.centres)))
        place_of = np.full(len(own), -1, dtype=np.int64)
        for index, (start, stop) in enumerate(zip(self.bounds, self.bounds[1:], strict=False)):
            users = by_list[ends[index - 1] if index else 0 : ends[index]]
            if start == stop or not len(users):
                continue
            columns = self.vectors[start:stop].float().T
            owners, hidden = masked.within(start, stop)
            for first in range(0, len(users), CHUNK_USERS):
                part = users[first : first + CHUNK_USERS]
                rows = torch.from_numpy(part)
                scores = own[rows] @ columns
                place_of[part] = np.arange(len(part))
                places = place_of[owners]
                present = places >= 0
                scores[torch.from_numpy(places[present]), torch.from_numpy(hidden[present] - start)] = -torch.inf
                place_of[part] = -1
                yield rows, int(start), scores

    def _locate(self, hidden: sp.csr_matrix) -> _Masked:
        owners = np.repeat(np.arange(hidden.shape[0], dtype=np.int64), np.diff(hidden.indptr))
        places = self.places[hidden.indices]
        order = np.argsort(places)
        return _Masked(owners[order], places[order])


@dataclass(frozen=True)
class _Masked:
    """What users may not get: rows of users, and places of items in rising order, shape (n,) each."""

    owners: Ids
    places: Ids

    def within(self, start: int, stop: int) -> tuple[Ids, Ids]:
        first, last = np.searchsorted(self.places, (start, stop))
        return self.owners[first:last], self.places[first:last]


class _Found:
    """The K best scores of each user of a block, as far as they are above a bar."""

    def __init__(self, bar: torch.Tensor, length: int) -> None:
        self._bar = bar
        self._length = length
        self._parts: list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32], Scores]] = []
        self._count = 0

    def add(self, rows: torch.Tensor, start: int, scores: torch.Tensor) -> None:
        # NumPy compares and finds six times as fast as torch's nonzero.
        flat = np.flatnonzero(np.greater(scores.numpy(), self._bar[rows].numpy()[:, None]))
        owners, columns = np.divmod(flat.astype(np.int32), np.int32(scores.shape[1]))
        self._parts.append(
            (rows.numpy()[owners].astype(np.uint16), columns + np.int32(start), scores.numpy().reshape(-1)[flat])
        )
        self._count += len(flat)
        if self._count > FOUND:
            self._thin()

    def best(self) -> tuple[Ids, Scores]:
        """Places of items, best first, and their scores: shape (B, K) each."""
        places, scores = self._rank()
        widths = ((0, 0), (0, self._length - scores.shape[1]))
        return np.pad(places, widths), np.pad(scores, widths, constant_values=-np.inf)

    def _thin(self) -> None:
        places, scores = self._rank()
        owners, ranks = np.nonzero(scores > -np.inf)
        self._parts = [(owners.astype(np.uint16), places[owners, ranks], scores[owners, ranks])]
        self._count = len(owners)
        if scores.shape[1] == self._length:
            self._bar = torch.maximum(self._bar, torch.from_numpy(scores[:, -1]))

    def _rank(self) -> tuple[npt.NDArray[np.int32], Scores]:
        owners, places, scores = (np.concatenate(columns) for columns in zip(*self._parts, strict=True))
        order = np.argsort(owners, kind="stable")  # of 16 bits: a radix sort
        places, scores = places[order], scores[order]
        counts = np.bincount(owners, minlength=len(self._bar))
        starts = np.cumsum(counts) - counts
        width = min(self._length, int(counts.max(initial=0)))
        chosen = np.zeros((len(counts), width), dtype=np.int32)
        best = np.full((len(counts), width), -np.inf, dtype=np.float32)
        # Those with as many finds together: one user of very many would make everybody's row as long as theirs.
        for users in np.array_split(np.argsort(counts, kind="stable"), max(1, len(counts) // RANKED_USERS)):
            columns = np.arange(int(counts[users].max(initial=0)))
            if not len(columns):
                continue
            cells = np.minimum(starts[users, None] + columns, len(scores) - 1)
            rows = np.where(columns < counts[users, None], scores[cells], np.float32(-np.inf))
            values, found = torch.from_numpy(rows).topk(min(width, len(columns)), dim=1)
            best[users, : values.shape[1]] = values.numpy()
            chosen[users, : values.shape[1]] = places[np.take_along_axis(cells, found.numpy(), axis=1)]
        return chosen, best


def _first_left(order: Ids, hidden: npt.NDArray[np.int32], length: int) -> tuple[Lists, Scores]:
    first = order[: length + len(hidden)]
    is_hidden = np.isin(first, hidden)
    chosen = np.concatenate([first[~is_hidden], first[is_hidden]])[:length]
    scores = np.where(np.arange(length) < np.count_nonzero(~is_hidden), 0.0, -np.inf)
    return chosen.astype(np.int32), scores.astype(np.float32)


def search_all(
    users: torch.Tensor, items: torch.Tensor, hidden: sp.csr_matrix, length: int, *, progress: bool = False
) -> tuple[Lists, Scores]:
    """Build an index and find the best items of every user, as `ItemIndex.search`."""
    index = build_index(items.cpu(), users.cpu(), length)
    starts = range(0, len(users), BLOCK_USERS)
    parts = [
        index.search(users[start : start + BLOCK_USERS].cpu(), hidden[start : start + BLOCK_USERS], length)
        for start in tqdm(starts, desc="ranking", unit="block", disable=None if progress else True, leave=False)
    ]
    found, scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return found, scores


def build_index(items: torch.Tensor, users: torch.Tensor, length: int, *, seed: int = 0) -> ItemIndex:
    """Part items into lists, and find how many of them a user must look into.

    Args:
        items: Of any floating type, shape (|I|, d).
        users: Some of those that will ask, shape (B, d).
        length: K of what they will ask for.
        seed: Of k-means.
    """
    import faiss  # takes a moment, and only a large catalogue needs it

    num_lists = max(1, 1 << round(np.log2(LISTS * len(items) ** 0.5)))
    faiss.omp_set_num_threads(torch.get_num_threads())
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(len(items), min(len(items), TRAINING_POINTS * num_lists), replace=False))
    kmeans = faiss.Kmeans(items.shape[1], num_lists, niter=ITERATIONS, seed=seed, min_points_per_centroid=1)
    kmeans.train(items[torch.from_numpy(sample)].float().numpy())
    owners = np.concatenate(
        [kmeans.index.search(part.float().numpy(), 1)[1][:, 0] for part in torch.split(items, BLOCK_USERS)]
    )
    order = np.argsort(owners, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=num_lists))])
    vectors = items[torch.from_numpy(order)]
    index = ItemIndex(
        vectors, order, np.argsort(order), bounds, torch.from_numpy(np.array(kmeans.centroids)), num_lists, 1.0
    )
    return _with_probes(index, users, min(length, len(items)))


def _with_probes(index: ItemIndex, users: torch.Tensor, length: int) -> ItemIndex:
    """Look into as few lists as hold `RECALL` of the exact first items."""
    own = users[:: -(-len(users) // MEASURED_USERS)].float()
    best = torch.full((len(own), 0), -torch.inf)
    places = torch.zeros((len(own), 0), dtype=torch.int64)
    for start in range(0, len(index.vectors), 2**16):
        scores = own @ index.vectors[start : start + 2**16].float().T
        found, columns = scores.topk(min(length, scores.shape[1]), dim=1)
        best, kept = torch.cat([best, found], dim=1).topk(min(length, best.shape[1] + found.shape[1]), dim=1)
        places = torch.cat([places, columns + start], dim=1).gather(1, kept)
    lists = torch.from_numpy(np.searchsorted(index.bounds, places.numpy(), side="right") - 1)
    ranks = (own @ index.centres.T).argsort(dim=1, descending=True).argsort(dim=1)
    needed = ranks.gather(1, lists)
    held = torch.bincount(needed.reshape(-1), minlength=len(index.centres)).cumsum(0) / needed.numel()
    probes = int((held < RECALL).sum()) + 1
    return replace(index, probes=probes, recall=float(held[probes - 1]))
