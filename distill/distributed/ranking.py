"""Quality of a sharded table: each rank ranks its own items for the users of all ranks, and the owners merge the lists.

No rank needs the whole table, or more of the interactions than its own users'. The users are those of
`distill.evaluation.sample`, so that a model that one machine trained is measured on the same ones. What is sent each
time is a vector and W lists of k for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import scipy.sparse as sp
import torch

from distill.distributed.ranks import Ranks
from distill.distributed.shares import Share
from distill.distributed.table import ShardedTable
from distill.evaluation.metrics import Rows, measure_ranking
from distill.evaluation.protocol import EvaluationReport, Protocol, Split
from distill.evaluation.ranking import drawn_order
from distill.evaluation.sample import Sample, draw_users
from distill.evaluation.tiles import rank_in_tiles


@dataclass(frozen=True)
class Questions:
    """The users of one split that are evaluated, of all ranks, and what may not be returned to them.

    Attributes:
        protocol: What is measured.
        users: Of this rank, numbered from its first one, shape (B,).
        counts: How many each rank has.
        hidden: Training items of the users of all ranks, as far as they are in this rank's part of the table, numbered
            from its first one: CSR of shape (Σ counts, items of the part).
        sample: The users of all ranks, numbered in the whole data.
    """

    protocol: Protocol
    users: Rows
    counts: Sequence[int]
    hidden: sp.csr_matrix
    sample: Sample


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
        self._items = table.local[max(0, share.num_users - table.first) :]
        self._first_item = max(0, table.first - share.num_users)
        order = drawn_order(share.num_items)
        self._place = np.argsort(order)  # of each item, where equal scores are ranked
        mine = order - self._first_item
        self._order = mine[(mine >= 0) & (mine < len(self._items))]

    def report(self, split: Split) -> EvaluationReport:
        """Rank the catalogue for the users of a split; all ranks return the same."""
        questions = self._ask(split)
        ranked = self._rank(questions)
        own = measure_ranking(ranked, getattr(self._share, split), questions.users, questions.protocol.cutoffs)
        everybody = self._ranks.gather(own)
        per_user = {name: np.concatenate([part[name] for part in everybody]) for name in own}
        metrics = {name: float(values.mean()) for name, values in per_user.items()}
        metrics.update(self._catalogue(ranked, questions.protocol.cutoffs))
        return EvaluationReport(metrics, len(questions.sample.users), questions.protocol, questions.sample, per_user)

    def reports(self) -> dict[str, Any]:
        """Validation and test, as a run's `metrics.json` has them, under either average over users."""
        found: dict[str, Any] = {}
        for split in get_args(Split):
            if self.has(split):
                report = self.report(split)
                found[split] = report.as_dict()
                found[f"{split}_all_users"] = report.over_all_users(self._share.num_users).as_dict()
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
        entries = (np.ones(int(here.sum()), dtype=np.float32), (owners[here], items[here] - self._first_item))
        hidden = sp.csr_matrix(entries, shape=(len(lengths), len(self._items)))
        return Questions(protocol, users, [len(part) for part, _ in told], hidden, sample)

    def _rank(self, questions: Questions) -> Rows:
        """Item rows for this rank's users, best first, shape (B, k)."""
        ranks, k = self._ranks, max(questions.protocol.cutoffs)
        most = max(questions.counts)
        own = torch.from_numpy(questions.users + self._share.users.start).to(ranks.device)
        with torch.no_grad():
            vectors = ranks.gather_rows(self._table.rows(own).detach(), most)
        everybody = torch.cat([part[:count] for part, count in zip(vectors, questions.counts, strict=True)])
        length = min(k, len(self._items))
        rows = np.arange(len(everybody), dtype=np.int64)
        ranked, values = rank_in_tiles(everybody, self._items, questions.hidden, rows, length, self._order)
        told = self._ranks.gather((ranked + self._first_item, values))
        start = sum(questions.counts[: ranks.rank])
        mine = slice(start, start + len(own))
        lists, scores = (np.concatenate([part[mine] for part in parts], axis=1) for parts in zip(*told, strict=True))
        best = np.lexsort((self._place[lists], -scores))[:, :k]
        found: Rows = np.take_along_axis(lists, best, axis=1)
        return found

    def _catalogue(self, ranked: Rows, cutoffs: Sequence[int]) -> dict[str, float]:
        found = {}
        for k in cutoffs:
            listed = self._ranks.gather(np.unique(ranked[:, :k]))
            taken = self._ranks.sum(np.array([self._share.item_counts[ranked[:, :k]].sum(), ranked[:, :k].size]))
            found[f"Coverage@{k}"] = len(np.unique(np.concatenate(listed))) / self._share.num_items
            found[f"Popularity@{k}"] = float(taken[0] / max(1, taken[1]))
        return found
