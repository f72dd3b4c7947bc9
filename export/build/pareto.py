"""The Pareto set: what no other one beats in everything at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def find_pareto(costs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Mark those that nobody dominates: no other is nowhere worse and somewhere better; equals are marked together.

    Args:
        costs: Shape (C, m), less is better in each column.

    Returns:
        bool, shape (C,).
    """
    table = np.asarray(costs)
    no_worse = (table[:, None] <= table[None]).all(axis=2)
    better = (table[:, None] < table[None]).any(axis=2)
    unbeaten: npt.NDArray[np.bool_] = np.logical_not((no_worse & better).any(axis=0))
    return unbeaten
