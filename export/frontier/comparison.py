"""Candidates set against the teacher and against each other, with what chance allows.

Two models rank the same users, so their means go up and down together; the interval of their ratio takes that into
account (the delta method: Cochran, "Sampling Techniques", 3rd ed. 1977, eq. 6.13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from distill.errors import SettingError
from export.frontier.candidates import Candidate, objectives
from export.frontier.measuring import RECALL, Quality, Values, kept_share
from export.frontier.pareto import find_pareto

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """A candidate and how it stands.

    Attributes:
        candidate: What was measured.
        kept: Share of the teacher's validation Recall@20.
        interval: 95 % confidence interval of `kept`, over users.
        kept_on_test: The same share on test, which chooses nothing; None without test items.
        pareto: Whether no other one beats it.
    """

    candidate: Candidate
    kept: float
    interval: tuple[float, float]
    kept_on_test: float | None
    pareto: bool

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.candidate.name


def compare_candidates(candidates: Sequence[Candidate]) -> list[Row]:
    """Set every candidate against the first, which is the teacher in float32.

    Raises:
        SettingError: The teacher finds nothing that is to be found.
    """
    teacher = candidates[0].quality
    if not teacher.validation[RECALL]:
        raise SettingError(f"teacher: its validation {RECALL} is 0, so nothing can be kept of it; train it again")
    best = find_pareto([objectives(candidate, teacher) for candidate in candidates])
    return [
        Row(
            candidate,
            kept_share(candidate.quality, teacher),
            ratio_interval(candidate.quality.recalls, teacher.recalls),
            _kept_on_test(candidate.quality, teacher),
            bool(pareto),
        )
        for candidate, pareto in zip(candidates, best, strict=True)
    ]


def _kept_on_test(quality: Quality, teacher: Quality) -> float | None:
    if not quality.test or not teacher.test or not teacher.test[RECALL]:
        return None
    return quality.test[RECALL] / teacher.test[RECALL]


def ratio_interval(first: Values, second: Values) -> tuple[float, float]:
    """95 % confidence interval of mean(first) / mean(second) over users drawn anew.

    Args:
        first: A metric of each user, shape (B,).
        second: The same of another model, shape (B,), of mean above 0.
    """
    ratio = float(first.mean() / second.mean())
    residuals = first - ratio * second
    if len(first) < 2:
        return ratio, ratio
    error = float(residuals.std(ddof=1)) / (float(second.mean()) * np.sqrt(len(first)))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(first) - 1)) * float(error)
    return ratio - reach, ratio + reach


def are_level(first: Row, second: Row) -> bool:
    """Whether the validation users cannot tell two candidates apart in Recall@20."""
    low, high = ratio_interval(first.candidate.quality.recalls, second.candidate.quality.recalls)
    return low <= 1.0 <= high
