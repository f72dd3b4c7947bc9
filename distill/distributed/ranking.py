"""Quality of a sharded table: each rank ranks its own items for the users of all ranks, and the owners merge the lists.

No rank needs the whole table, or more of the interactions than its own users'. The users are those of
`distill.evaluation.sample`, so that a model that one machine trained is measured on the same ones. What is sent each
time is a vector and W lists of k for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from distill.distributed.ranks import Ranks
from distill.distributed.shares import Share
from distill.distributed.table import ShardedTable
from distill.evaluation.metrics import METRICS, Rows, measure_ranking
from distill.evaluation.protocol import Protocol, Split
from distill.evaluation.sample import Sample, draw_users

BLOCK_USERS, BLOCK_ITEMS = 256, 2**16
"""A block of scores takes 64 MiB."""


def rank_range(
    vectors: torch.Tensor, items: torch.Tensor | npt.NDArray[Any], first: int, hidden: sp.csr_matrix, k: int
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Rank a range of the items by inner products, a block of scores at a time.

    Args:
        vectors: Of users, shape (B, d).
        items: Embeddings of the range, shape (n, d), which may be mapped from disk.
        first: Number of the first of them.
        hidden: Items never to be returned, CSR of shape (B, |I|).
        k: Length of the lists.

    Returns:
        Item rows, best first, and scores, −∞ where fewer than k items are left: shape (B, k) each.
    """
    ranked = np.zeros((len(vectors), k), dtype=np.int64)
    values = np.full((len(vectors), k), -np.inf, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK_USERS):
        rows = slice(start, start + BLOCK_USERS)
        part = hidden[rows]
        owners = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        best = torch.full((part.shape[0], k), -torch.inf, device=vectors.device)
        found = torch.zeros(part.shape[0], k, dtype=torch.int64, device=vectors.device)
        for low in range(0, len(items), BLOCK_ITEMS):
            part_items = items[low : low + BLOCK_ITEMS]
            if not isinstance(part_items, torch.Tensor):
                part_items = torch.from_numpy(np.array(part_items, dtype=np.float32))
            block = part_items.to(vectors.device)
            scores = vectors[rows] @ block.T
            columns = part.indices - (first + low)
            here = (columns >= 0) & (columns < len(block))
            scores[torch.from_numpy(owners[here]), torch.from_numpy(columns[here]).long()] = -torch.inf
            top = scores.topk(min(k, len(block)), dim=1)
            merged = torch.cat([best, top.values], dim=1).topk(k, dim=1)
            found = torch.cat([found, top.indices + (first + low)], dim=1).gather(1, merged.indices)
            best = merged.values
        ranked[rows], values[rows] = found.cpu().numpy(), best.cpu().numpy()
    return ranked, values


@dataclass(frozen=True)
class Questions:
    """The users of one split that are evaluated, of all ranks, and what may not be returned to them.

    Attributes:
        protocol: What is measured.
        users: Of this rank, numbered from its first one, shape (B,).
        counts: How many each rank has.
        hidden: Training items of the users of all ranks, as far as they are in this rank's part of the table, CSR of
            shape (Σ counts, |I|).
        sample: The users of all ranks, numbered in the whole data.
    """

    protocol: Protocol
    users: Rows
    counts: Sequence[int]
    hidden: sp.csr_matrix
    sample: Sample

    @property
    def convention(self) -> str:
        """Say the protocol in words, and the sample where it is one."""
        return self.protocol.convention(self.sample)


class Evaluation:
    """What is asked of a table again and again: the questions of each split are exchanged once."""

    def __init__(self, share: Share, table: ShardedTable, ranks: Ranks, eval_users: int | None = None) -> None:
        """Take over whom to ask.

        Args:
            share: Of this rank.
            table: Whose rows are the embeddings.
            ranks: Who rank together.
            eval_users: On how many users, as in `Protocol`.
        """
        self._share, self._table, self._ranks, self._eval_users = share, table, ranks, eval_users
        self._questions: dict[Split, Questions] = {}
        start = max(0, share.num_users - table.first)
        self._first_item = max(0, table.first - share.num_users)
        self._items = table.local[start:]

    def report(self, split: Split) -> dict[str, Any]:
        """Rank the catalogue for the users of a split: the metrics of `EvaluationReport`, and its words."""
        questions = self._ask(split)
        relevant = getattr(self._share, split)
        ranked = self._rank(questions)
        per_user = measure_ranking(ranked, relevant, questions.users, questions.protocol.cutoffs)
        sums = self._ranks.sum(np.array([values.sum() for values in per_user.values()]))
        number = sum(questions.counts)
        metrics = {name: float(total / number) for name, total in zip(per_user, sums, strict=True)}
        return {**metrics, **self._catalogue(ranked, questions.protocol.cutoffs), "num_users": number,
                "convention": questions.convention}  # fmt: skip

    def reports(self) -> dict[str, Any]:
        """Validation and test, as a run's `metrics.json` has them, under either average over users."""
        found: dict[str, Any] = {}
        splits: tuple[Split, ...] = ("validation", "test")
        for split in splits:
            report = self.report(split) if self.has(split) else None
            if report is None:
                continue
            found[split] = {name: _rounded(value) for name, value in report.items()}
            questions = self._ask(split)
            share = questions.sample.num_relevant / self._share.num_users
            everybody = {
                name: _rounded(value * share) if name.partition("@")[0] in METRICS else _rounded(value)
                for name, value in report.items()
            }
            convention = replace(questions.protocol, average="all").convention(questions.sample)
            found[f"{split}_all_users"] = {**everybody, "num_users": self._share.num_users, "convention": convention}
        return found

    def has(self, split: Split) -> bool:
        """Whether any rank has users to ask; asked by all of them together."""
        return self._ask(split).sample.num_relevant > 0

    def _ask(self, split: Split) -> Questions:
        if split not in self._questions:
            self._questions[split] = self._exchange(split)
        return self._questions[split]

    def _exchange(self, split: Split) -> Questions:
        """Find this rank's users among those drawn, and tell each rank what its items may not be returned to."""
        share, ranks = self._share, self._ranks
        protocol = Protocol(split=split, eval_users=self._eval_users)
        relevant = np.concatenate(ranks.gather(np.diff(getattr(share, split).indptr)))
        sample = draw_users(relevant, share.num_items, self._eval_users)
        first, last = np.searchsorted(sample.users, [share.users.start, share.users.stop])
        users = sample.users[first:last] - share.users.start
        histories = share.train[users]
        told = ranks.gather((np.diff(histories.indptr), histories.indices))
        lengths, items = (np.concatenate(part) for part in zip(*told, strict=True))
        owners = np.repeat(np.arange(len(lengths)), lengths)
        here = (items >= self._first_item) & (items < self._first_item + len(self._items))
        entries = (np.ones(int(here.sum()), dtype=np.float32), (owners[here], items[here]))
        hidden = sp.csr_matrix(entries, shape=(len(lengths), share.num_items))
        return Questions(protocol, users, [len(part) for part, _ in told], hidden, sample)

    def _rank(self, questions: Questions) -> Rows:
        """Item rows for this rank's users, best first, shape (B, k)."""
        ranks, k = self._ranks, max(questions.protocol.cutoffs)
        most = max(questions.counts)
        own = torch.from_numpy(questions.users + self._share.users.start).to(ranks.device)
        with torch.no_grad():
            vectors = ranks.gather_rows(self._table.rows(own).detach(), most)
        everybody = torch.cat([part[:count] for part, count in zip(vectors, questions.counts, strict=True)])
        ranked, values = rank_range(everybody, self._items, self._first_item, questions.hidden, k)
        lists = ranks.gather_rows(torch.from_numpy(ranked).to(ranks.device), len(everybody))
        scores = ranks.gather_rows(torch.from_numpy(values).to(ranks.device), len(everybody))
        start = sum(questions.counts[: ranks.rank])
        mine = slice(start, start + len(own))
        flat = scores[:, mine].transpose(0, 1).reshape(len(own), -1)
        best = flat.topk(k, dim=1).indices
        found = lists[:, mine].transpose(0, 1).reshape(len(own), -1).gather(1, best)
        return np.asarray(found.cpu().numpy(), dtype=np.int64)

    def _catalogue(self, ranked: Rows, cutoffs: Sequence[int]) -> dict[str, float]:
        found = {}
        for k in cutoffs:
            listed = self._ranks.gather(np.unique(ranked[:, :k]))
            taken = self._ranks.sum(np.array([self._share.item_counts[ranked[:, :k]].sum(), ranked[:, :k].size]))
            found[f"Coverage@{k}"] = len(np.unique(np.concatenate(listed))) / self._share.num_items
            found[f"Popularity@{k}"] = float(taken[0] / max(1, taken[1]))
        return found


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
