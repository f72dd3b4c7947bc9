"""The teacher, of which a rank reads what it needs from a mapped file, and keeps what it made of that in files.

FreqD compares with rows h(L) X_t, `ce` with the teacher's first items. Either is computed once, a block of entities at
a time, for the rank's own users and items, and written as `.npy` in the run (float16; int32 and float32); a step reads
the rows of its batch from there, through the page cache. The name of a file holds the ranges and the settings, so what
is found there is what would be computed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from tqdm import tqdm

from distill.distributed.ranks import Ranks
from distill.distributed.shares import Share
from distill.errors import RunError
from distill.evaluation.ranking import drawn_order, top_items
from distill.graph.adjacency import degree_powers
from distill.methods.candidates import is_whole
from distill.methods.item_index import BLOCK_USERS
from distill.methods.stored_lists import Factors, open_lists, store_lists
from distill.methods.top_lists import TopLists
from distill.run import Run

BLOCK_BYTES = 64 * 2**20
FOLDER = "ranks"
Matrix = npt.NDArray[Any]


def filter_rows(share: Share, coefficients: tuple[float, ...]) -> sp.csr_matrix:
    """Take the rank's rows of h(L) = c₀ I + c₁ (I − Â) over the user–item graph, as `GraphFilter` has them.

    Returns:
        CSR of shape (own entities, N), its columns rows of the table.
    """
    constant, slope = (*coefficients, 0.0)[:2]
    scale = np.concatenate([degree_powers(share.user_counts, -0.5), degree_powers(share.item_counts, -0.5)])
    num_users, num_items = share.num_users, share.num_items
    below = sp.csr_matrix((share.num_own_users, num_users), dtype=np.float32)
    right = sp.csr_matrix((share.num_own - share.num_own_users, num_items), dtype=np.float32)
    adjacency = sp.vstack([sp.hstack([below, share.train]), sp.hstack([share.item_users, right])], format="csr")
    rows = share.table_rows(np.arange(share.num_own))
    normalized = sp.diags_array(scale[rows]) @ adjacency @ sp.diags_array(scale)
    itself = sp.csr_matrix((np.ones(len(rows)), rows, np.arange(len(rows) + 1)), shape=adjacency.shape)
    found = sp.csr_matrix((constant + slope) * itself - slope * normalized, dtype=np.float32)
    found.eliminate_zeros()
    found.sort_indices()
    return found


@dataclass(frozen=True)
class RangeFiles:
    """Where a rank keeps what it computes once.

    Attributes:
        folder: `ranks/` of the run.
        share: Whose ranges are part of the names.
        settings: All that the contents depend on, beside the data.
        shown: Whether progress is shown.
    """

    folder: Path
    share: Share
    settings: Mapping[str, Any]
    shown: bool

    def path(self, name: str, suffix: str = "") -> Path:
        """Where something is, named by what it is made of, too."""
        words = json.dumps([self.settings, self.share.fingerprint], sort_keys=True)
        digest = hashlib.sha256(words.encode()).hexdigest()[:12]
        users, items = self.share.users, self.share.items
        return self.folder / f"{name}-{users.start}-{users.stop}-{items.start}-{items.stop}-{digest}{suffix}"

    def open(
        self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, blocks: Callable[[], Iterator[Matrix]]
    ) -> Matrix:
        """Map an array, which is computed first where it is not there.

        Args:
            name: Of what it is.
            shape: Its first axis goes over users, or over entities, of the range.
            dtype: Of the file.
            blocks: Yields it in order, some rows at a time.
        """
        path = self.path(name, ".npy")
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".draft")
            whole = np.lib.format.open_memmap(draft, "w+", dtype, shape)
            place = 0
            with tqdm(total=shape[0], desc=name, unit="row", leave=False, disable=None if self.shown else True) as bar:
                for block in blocks():
                    whole[place : place + len(block)] = block
                    place += len(block)
                    bar.update(len(block))
            whole.flush()
            draft.replace(path)
        mapped: Matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped


def filtered_teacher(files: RangeFiles, filtered: sp.csr_matrix, teacher: Run, scale: float) -> Matrix:
    """Compute the rank's rows of h(L) X_t: float16 of shape (own entities, d_t), mapped."""
    step = max(1, BLOCK_BYTES // (4 * teacher.dim * 8))

    def blocks() -> Iterator[Matrix]:
        for start in range(0, filtered.shape[0], step):
            part = filtered[start : start + step]
            columns, places = np.unique(part.indices, return_inverse=True)
            compact = sp.csr_matrix((part.data, places, part.indptr), shape=(part.shape[0], len(columns)))
            split = int(np.searchsorted(columns, files.share.num_users))
            rows = np.concatenate(
                [
                    teacher.user_embeddings[columns[:split]],
                    teacher.item_embeddings[columns[split:] - files.share.num_users],
                ]
            )
            yield compact @ (rows.astype(np.float32) * np.float32(scale))

    return files.open("filtered", (files.share.num_own, teacher.dim), np.float16, blocks)


def top_lists(files: RangeFiles, teacher: Run, hidden: sp.csr_matrix, length: int, scale: float) -> TopLists:
    """Rank the catalogue by the teacher for each of the rank's users; by inverted lists where one process does.

    Args:
        files: Where the lists are kept.
        teacher: Whose inner products.
        hidden: What is left out, CSR of shape (own users, |I|).
        length: K, cut to the catalogue.
        scale: Factor of the features.
    """
    share, factor = files.share, scale**2  # of the user's and the item's features
    users, items = teacher.user_embeddings[share.users], teacher.item_embeddings
    if not is_whole(share.num_users, share.num_items):
        folder = files.path("lists")
        found = open_lists(folder, share.num_items)
        if found is None:
            factors = Factors(torch.from_numpy(users), torch.from_numpy(items))
            store_lists(folder, factors, hidden, drawn_order(share.num_items), {})
            found = open_lists(folder, share.num_items)
        if found is None:
            raise RunError(f"{folder}: cannot be read back as it was written; is the disk full?")
        return found[0].scaled(factor).listed(length)
    length = min(length, share.num_items)
    dtype = np.dtype([("items", np.int32, (length,)), ("scores", np.float32, (length,))])

    def blocks() -> Iterator[Matrix]:
        for start in range(0, len(users), BLOCK_USERS):
            rows = np.arange(start, min(start + BLOCK_USERS, len(users)))
            records = np.empty(len(rows), dtype)
            records["items"], records["scores"] = top_items(users, items, hidden, rows, length)
            yield records

    records = files.open("lists", (share.num_own_users,), dtype, blocks)
    return TopLists(records["items"], records["scores"], share.num_items, factor)


def remove_range_files(out: Path, ranks: Ranks) -> None:
    """Remove this rank's files of a finished run: all of the folder, once everybody is done with it."""
    ranks.gather(None)
    if ranks.is_first and (out / FOLDER).is_dir():
        shutil.rmtree(out / FOLDER)
