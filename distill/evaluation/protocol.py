"""Evaluation under a stated protocol: the whole catalogue is ranked for all users with relevant items, or a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.metrics import Rows, Values, measure_ranking
from distill.evaluation.ranking import CHUNK_BYTES, ScoreRows, rank_items, rank_scores
from distill.evaluation.sample import Sample, draw_users
from distill.evaluation.tiles import Embeddings

Split = Literal["validation", "test"]
Mask = Literal["train", "train+validation"]
Average = Literal["with-relevant", "all"]


@dataclass(frozen=True)
class Protocol:
    """What is relevant, what is masked and over whom is averaged; two reports compare only under the same protocol.

    Attributes:
        split: Whose items are relevant.
        mask: Whose items may not be recommended. "train" is the public code's choice.
        average: Over users with at least one relevant item, or over all users with zeros for the rest
            (the public code's choice).
        cutoffs: The k of the metrics.
        eval_users: At most so many users are ranked, a drawn sample of those with relevant items; None for as many as
            `draw_users` says, which is all up to 10⁹ scores.
    """

    split: Split = "test"
    mask: Mask = "train"
    average: Average = "with-relevant"
    cutoffs: tuple[int, ...] = (10, 20)
    eval_users: int | None = None

    def __post_init__(self) -> None:
        if self.split == "validation" and self.mask == "train+validation":
            raise SettingError(
                "mask: 'train+validation' hides the very items split 'validation' looks for; use 'train'"
            )
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise SettingError("cutoffs: give at least one, each 1 or more")

    def sample(self, data: Interactions) -> Sample:
        """The users that are ranked: the same for every model of the data.

        Raises:
            SettingError: `eval_users` is below 2.
        """
        return draw_users(np.diff(getattr(data, self.split).indptr), data.num_items, self.eval_users)

    def convention(self, sample: Sample) -> str:
        """Say the convention in words, for reports."""
        whom = sample.words
        if self.average == "all":
            whom = f"all users, estimated from {whom}" if sample.is_drawn else "all users"
        return f"full ranking, {self.split} items relevant, {self.mask} items masked, mean over {whom}"

    @property
    def report_name(self) -> str:
        """The key in `metrics.json`: reports under different conventions must never replace one another."""
        masked = "_validation_masked" if self.mask == "train+validation" else ""
        return self.split + masked + ("_all_users" if self.average == "all" else "")


@dataclass(frozen=True)
class EvaluationReport:
    """Metrics of one model under one protocol.

    Attributes:
        metrics: "Recall@20" and so on, "Coverage@k" (share of the catalogue recommended to anybody) and
            "Popularity@k" (mean number of training interactions of a recommended item).
        num_users: Users averaged over.
        protocol: Under which it was measured.
        sample: The users that were ranked.
        per_user: The metrics of each of them, without "Coverage@k" and "Popularity@k": float64, shape (B,); what a
            paired test between two models needs.
    """

    metrics: Mapping[str, float]
    num_users: int
    protocol: Protocol
    sample: Sample = field(compare=False, repr=False)
    per_user: Mapping[str, Values] = field(compare=False, repr=False)

    @property
    def users(self) -> Rows:
        """Row numbers of the users that were ranked, shape (B,)."""
        return self.sample.users

    @property
    def convention(self) -> str:
        """How it was measured, in words."""
        return self.protocol.convention(self.sample)

    @property
    def standard_errors(self) -> dict[str, float]:
        """Of each metric in `per_user`: how far the mean over a sample is likely to be from that over all users."""
        share = 1.0 if self.protocol.average == "with-relevant" else self.sample.num_relevant / self.num_users
        return {name: self.sample.standard_error(values) * share for name, values in self.per_user.items()}

    def over_all_users(self, num_users: int) -> EvaluationReport:
        """Average the same ranking over all |U| users, zeros for those without relevant items."""
        share = self.sample.num_relevant / num_users
        metrics = {
            name: value if name.startswith(("Coverage", "Popularity")) else value * share
            for name, value in self.metrics.items()
        }
        return replace(self, metrics=metrics, num_users=num_users, protocol=replace(self.protocol, average="all"))

    def as_dict(self) -> dict[str, Any]:
        """What `metrics.json` keeps: metrics of six digits, users, the convention; of a sample "standard_error"."""
        errors = {name: round(value, 6) for name, value in self.standard_errors.items()} if self.sample.is_drawn else {}
        return {
            **{name: round(value, 6) for name, value in self.metrics.items()},
            "num_users": self.num_users,
            "convention": self.convention,
            **({"standard_error": errors} if errors else {}),
        }


def evaluate(
    user_embeddings: Embeddings,
    item_embeddings: Embeddings,
    data: Interactions,
    protocol: Protocol | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = False,
) -> EvaluationReport:
    """Rank the whole catalogue for every user that has relevant items, or a sample of them, and average.

    Args:
        user_embeddings: Shape (|U|, d).
        item_embeddings: Shape (|I|, d); scores are inner products.
        data: The interactions whose split is asked for.
        protocol: `Protocol()` when None.
        chunk_bytes: Bound on one chunk of scores, bytes.
        progress: Show a bar.

    Raises:
        SettingError: The split has no interactions, a cutoff exceeds the catalogue, or the sample is below 2 users.
    """
    rank = partial(rank_items, user_embeddings, item_embeddings, chunk_bytes=chunk_bytes, progress=progress)
    return evaluate_lists(rank, data, protocol or Protocol())


def evaluate_scores(
    score_rows: ScoreRows,
    data: Interactions,
    protocol: Protocol | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = False,
) -> EvaluationReport:
    """Do what `evaluate` does for a model that is not an inner product: `score_rows` maps users to scores (B, |I|).

    Raises:
        SettingError: As `evaluate`.
    """
    rank = partial(rank_scores, score_rows, chunk_bytes=chunk_bytes, progress=progress)
    return evaluate_lists(rank, data, protocol or Protocol())


def report_splits(
    evaluate_under: Callable[[Protocol], EvaluationReport], data: Interactions, eval_users: int | None = None
) -> dict[str, Any]:
    """Report validation and test, under the default convention and under the public code's (`*_all_users`).

    Args:
        evaluate_under: `evaluate` or `evaluate_scores` of a model and `data`.
        data: A split without interactions is left out.
        eval_users: Of the `Protocol`.

    Returns:
        Name of the report → `EvaluationReport.as_dict`, as in a run's `metrics.json`.
    """
    reports: dict[str, Any] = {}
    for split in ("validation", "test"):
        if getattr(data, split).nnz:
            with_relevant = evaluate_under(Protocol(split=split, eval_users=eval_users))
            reports[split] = with_relevant.as_dict()
            reports[f"{split}_all_users"] = with_relevant.over_all_users(data.num_users).as_dict()
    return reports


def evaluate_lists(
    rank: Callable[[sp.csr_matrix, Rows, int], Rows], data: Interactions, protocol: Protocol
) -> EvaluationReport:
    """Do what `evaluate` does for whatever makes lists.

    Args:
        rank: Masked items (CSR of shape (|U|, |I|)), users (B,) and length K → item rows, best first, (B, K).
        data: As of `evaluate`.
        protocol: Likewise.

    Raises:
        SettingError: As `evaluate`.
    """
    relevant = _relevant_items(data, protocol)
    masked = data.train if protocol.mask == "train" else (data.train + data.validation).tocsr()
    sample = protocol.sample(data)
    ranked = rank(masked, sample.users, max(protocol.cutoffs))
    per_user = measure_ranking(ranked, relevant, sample.users, protocol.cutoffs)
    num_users = len(sample.users) if protocol.average == "with-relevant" else data.num_users
    # Of a sample each user stands for several; of all users this is exactly their number.
    divisor = num_users if num_users == len(sample.users) else len(sample.users) * num_users / sample.num_relevant
    metrics = {name: float(values.sum() / divisor) for name, values in per_user.items()}
    metrics.update(_catalogue_metrics(ranked, data, protocol.cutoffs))
    return EvaluationReport(metrics, num_users, protocol, sample, per_user)


def describe_sample(data: Interactions, eval_users: int | None = None) -> str | None:
    """Say in a line on whom quality is measured, for whoever waits; None where it is on everybody."""
    samples = [
        Protocol(split=split, eval_users=eval_users).sample(data)
        for split in get_args(Split)
        if getattr(data, split).nnz
    ]
    drawn = next((sample for sample in reversed(samples) if sample.is_drawn), None)
    return None if drawn is None else f"quality is measured on {drawn.words}; --eval-users N for other numbers"


def _relevant_items(data: Interactions, protocol: Protocol) -> sp.csr_matrix:
    """Return the split to be found, checked against the protocol."""
    relevant: sp.csr_matrix = getattr(data, protocol.split)
    if relevant.nnz == 0:
        raise SettingError(
            f"split: data set '{data.name}' has no {protocol.split} interactions; prepare it with a split"
        )
    if max(protocol.cutoffs) > data.num_items:
        raise SettingError(
            f"cutoffs: {max(protocol.cutoffs)} exceeds the {data.num_items} items of data set '{data.name}'; "
            "take data of more items, or with 'lowpass evaluate' a smaller -k"
        )
    return relevant


def _catalogue_metrics(ranked: Rows, data: Interactions, cutoffs: Sequence[int]) -> dict[str, float]:
    found = {}
    for k in cutoffs:
        found[f"Coverage@{k}"] = len(np.unique(ranked[:, :k])) / data.num_items
        found[f"Popularity@{k}"] = float(data.item_popularity[ranked[:, :k]].mean())
    return found
