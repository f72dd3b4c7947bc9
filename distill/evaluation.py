"""Full-ranking evaluation: every user against the whole catalogue, in chunks under a memory bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.metrics import METRICS

Split = Literal["validation", "test"]
Mask = Literal["train", "train+validation"]
Average = Literal["with-relevant", "all"]

CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Protocol:
    """The evaluation convention; two reports compare only under the same one.

    Attributes:
        split: Whose items are relevant.
        mask: Whose items may not be recommended. "train" is the public code's choice.
        average: Over users with at least one relevant item, or over all users with zeros for the rest
            (the public code's choice).
        cutoffs: The k of the metrics.
    """

    split: Split = "test"
    mask: Mask = "train"
    average: Average = "with-relevant"
    cutoffs: tuple[int, ...] = (10, 20)

    def __post_init__(self) -> None:
        if self.split == "validation" and self.mask == "train+validation":
            raise SettingError(
                "mask: 'train+validation' hides the very items split 'validation' looks for; use 'train'"
            )
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise SettingError("cutoffs: give at least one, each 1 or more")

    @property
    def convention(self) -> str:
        """The convention in words, for reports."""
        users = "users with relevant items" if self.average == "with-relevant" else "all users"
        return f"full ranking, {self.split} items relevant, {self.mask} items masked, mean over {users}"


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found.

    Attributes:
        metrics: "Recall@20" and so on, "Coverage@k" (share of the catalogue recommended to anybody) and
            "Popularity@k" (mean number of training interactions of a recommended item).
        num_users: Users averaged over.
        protocol: The convention.
    """

    metrics: Mapping[str, float]
    num_users: int
    protocol: Protocol

    def over_all_users(self, num_users: int) -> EvaluationReport:
        """The same ranking averaged over all |U| users, zeros for those without relevant items."""
        share = self.num_users / num_users
        metrics = {
            name: value if name.startswith(("Coverage", "Popularity")) else value * share
            for name, value in self.metrics.items()
        }
        return EvaluationReport(metrics, num_users, replace(self.protocol, average="all"))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **{name: round(value, 6) for name, value in self.metrics.items()},
            "num_users": self.num_users,
            "convention": self.protocol.convention,
        }


def rank_items(
    user_embeddings: torch.Tensor,
    item_embeddings: torch.Tensor,
    masked: sp.csr_matrix,
    users: npt.NDArray[np.int64],
    k: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = False,
) -> npt.NDArray[np.int64]:
    """Rank the catalogue for some users.

    Args:
        user_embeddings: Shape (|U|, d); its device does the work.
        item_embeddings: Shape (|I|, d).
        masked: Items never to be returned, CSR of shape (|U|, |I|).
        users: Row numbers, shape (B,).
        k: Length of the lists, at most |I|.
        chunk_bytes: Bound on one block of scores, bytes.
        progress: Show a bar.

    Returns:
        Item rows, best first, shape (B, k). Where fewer than k items are left, masked ones fill the end.
    """
    chunk = max(1, chunk_bytes // (4 * item_embeddings.shape[0]))
    ranked = np.empty((len(users), k), dtype=np.int64)
    columns = item_embeddings.T
    starts = range(0, len(users), chunk)
    for start in tqdm(starts, desc="ranking", unit="chunk", disable=None if progress else True, leave=False):
        rows = users[start : start + chunk]
        scores = user_embeddings[torch.from_numpy(rows)] @ columns
        hidden = masked[rows].tocoo()
        scores[
            torch.from_numpy(hidden.row.astype(np.int64)), torch.from_numpy(hidden.col.astype(np.int64))
        ] = -torch.inf
        ranked[start : start + chunk] = scores.topk(k, dim=1).indices.cpu().numpy()
    return ranked


def find_hits(
    ranked: npt.NDArray[np.int64], relevant: sp.csr_matrix, users: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Mark which recommended items are relevant.

    Args:
        ranked: Item rows, shape (B, K).
        relevant: CSR of shape (|U|, |I|) with sorted indices.
        users: Row numbers of the B users.

    Returns:
        bool, shape (B, K).
    """
    num_items = relevant.shape[1]
    owners = np.repeat(np.arange(relevant.shape[0], dtype=np.int64), np.diff(relevant.indptr))
    keys = owners * num_items + relevant.indices
    wanted = users[:, None] * num_items + ranked
    if not len(keys):
        return np.zeros(ranked.shape, dtype=np.bool_)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    hits: npt.NDArray[np.bool_] = keys[places] == wanted
    return hits


def evaluate(
    user_embeddings: torch.Tensor | npt.NDArray[np.float32],
    item_embeddings: torch.Tensor | npt.NDArray[np.float32],
    data: Interactions,
    protocol: Protocol | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = False,
) -> EvaluationReport:
    """Rank the whole catalogue for every user that has relevant items and average.

    Args:
        user_embeddings: Shape (|U|, d).
        item_embeddings: Shape (|I|, d); scores are inner products.
        data: The interactions whose split is asked for.
        protocol: The convention; the default one when None.
        chunk_bytes: Bound on one block of scores, bytes.
        progress: Show a bar.

    Returns:
        The report.

    Raises:
        SettingError: The split has no interactions, or a cutoff exceeds the catalogue.
    """
    protocol = protocol or Protocol()
    relevant = _relevant_items(data, protocol)
    longest = max(protocol.cutoffs)
    masked = data.train if protocol.mask == "train" else (data.train + data.validation).tocsr()
    num_relevant_of_all = np.diff(relevant.indptr)
    users = np.flatnonzero(num_relevant_of_all).astype(np.int64)
    ranked = rank_items(
        torch.as_tensor(user_embeddings),
        torch.as_tensor(item_embeddings),
        masked,
        users,
        longest,
        chunk_bytes=chunk_bytes,
        progress=progress,
    )
    hits = find_hits(ranked, relevant, users)
    divisor = len(users) if protocol.average == "with-relevant" else data.num_users
    metrics = {
        f"{name}@{k}": float(metric(hits, num_relevant_of_all[users], k).sum() / divisor)
        for k in protocol.cutoffs
        for name, metric in METRICS.items()
    }
    metrics.update(_catalogue_metrics(ranked, data, protocol.cutoffs))
    return EvaluationReport(metrics, divisor, protocol)


def _relevant_items(data: Interactions, protocol: Protocol) -> sp.csr_matrix:
    """The split to be found, checked against the protocol."""
    relevant: sp.csr_matrix = getattr(data, protocol.split)
    if relevant.nnz == 0:
        raise SettingError(
            f"split: data set '{data.name}' has no {protocol.split} interactions; prepare it with a split"
        )
    if max(protocol.cutoffs) > data.num_items:
        raise SettingError(
            f"cutoffs: {max(protocol.cutoffs)} exceeds the {data.num_items} items of data set '{data.name}'"
        )
    return relevant


def _catalogue_metrics(ranked: npt.NDArray[np.int64], data: Interactions, cutoffs: Sequence[int]) -> dict[str, float]:
    counts = np.bincount(data.train.indices, minlength=data.num_items)
    found = {}
    for k in cutoffs:
        found[f"Coverage@{k}"] = len(np.unique(ranked[:, :k])) / data.num_items
        found[f"Popularity@{k}"] = float(counts[ranked[:, :k]].mean())
    return found
