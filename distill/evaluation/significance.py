"""Is one method better than another? Paired over users, corrected for the number of questions asked.

Two methods are measured on the same users, so that the mean of the differences user by user is tested. A user's
metric is averaged over a method's seeds first: one user under three seeds is no three users, and to count him as such
would invent certainty.

Student's t and not Wilcoxon's signed ranks: it tests the mean, which is what tables report, it agrees with the
randomisation test on rankings, and it comes with an interval (Smucker, Allan and Carterette, "A comparison of
statistical significance tests for information retrieval evaluation", CIKM 2007).

References:
    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6(2), 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedTest:
    """Two methods, user by user.

    Attributes:
        first: Name of one.
        second: Name of the other.
        difference: Mean over users of first − second.
        low: Lower end of the 95 % confidence interval of the difference.
        high: Its upper end.
        p_value: Two-sided, of there being no difference.
        corrected: The same after Holm's correction for all pairs tested together.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    corrected: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference,
            "interval": [self.low, self.high],
            "p": self.p_value,
            "p_corrected": self.corrected,
        }


def average_seeds(runs: Sequence[Values]) -> Values:
    """Average each user's metric over the seeds of one method: arrays (B,) over the same users in the same order."""
    average: Values = np.mean(np.stack(runs), axis=0, dtype=np.float64)
    return average


def compare_pairs(methods: Mapping[str, Values]) -> tuple[PairedTest, ...]:
    """Test every pair of methods by Student's paired t.

    Args:
        methods: Name → each user's metric, averaged over seeds; the same users in the same order, shape (B,), B > 1.

    Returns:
        One entry a pair, in the order of the mapping.
    """
    pairs = list(combinations(methods, 2))
    tested = [_test(methods[first] - methods[second]) for first, second in pairs]
    corrected = holm(np.array([p_value for *_, p_value in tested]))
    return tuple(
        PairedTest(first, second, *found, float(adjusted))
        for (first, second), found, adjusted in zip(pairs, tested, corrected, strict=True)
    )


def holm(p_values: Values) -> Values:
    """Adjust p-values so that the chance of even one false alarm among them stays below what each one says.

    Args:
        p_values: Shape (m,), in any order.

    Returns:
        For the i-th smallest, the maximum over j ≤ i of min(1, (m − j + 1) p_(j)); in the order given, shape (m,).
    """
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return adjusted


def _test(differences: Values) -> tuple[float, float, float, float]:
    """Mean, lower end, upper end and p-value; without any variation the mean is taken as certain."""
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return mean, mean, mean, float(mean == 0)
    result = stats.ttest_1samp(differences, 0.0)
    interval = result.confidence_interval(CONFIDENCE)
    return mean, float(interval.low), float(interval.high), float(result.pvalue)
