"""The Pareto set: candidates that no other one beats.

Quality and time are compared in steps no finer than they can be told: one per cent of the teacher's quality, a
quarter of a query's time. Without steps, half of all candidates would stand there by the luck of their last digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KEPT_STEP = 0.01
TIME_STEP = 0.25


@dataclass(frozen=True)
class Objectives:
    """What a candidate is judged by.

    Attributes:
        kept: Quality as a share of the teacher's; more is better.
        bytes_per_item: Less is better.
        microseconds: Of a single query, above 0; less is better.
    """

    kept: float
    bytes_per_item: int
    microseconds: float

    @property
    def costs(self) -> tuple[int, int, int]:
        """Whole steps, less is better in each."""
        time = math.log(self.microseconds) / math.log1p(TIME_STEP)
        return -round(self.kept / KEPT_STEP), self.bytes_per_item, round(time)


def dominates(first: Objectives, second: Objectives) -> bool:
    """Whether `first` is nowhere worse than `second` and somewhere better."""
    pairs = list(zip(first.costs, second.costs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def find_pareto(objectives: Sequence[Objectives]) -> npt.NDArray[np.bool_]:
    """Mark those that nobody dominates; equals are marked together.

    Returns:
        bool, shape (C,).
    """
    costs = np.array([each.costs for each in objectives]).reshape(-1, 3)
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)
    better = (costs[:, None] < costs[None]).any(axis=2)
    pareto: npt.NDArray[np.bool_] = np.logical_not((no_worse & better).any(axis=0))
    return pareto
