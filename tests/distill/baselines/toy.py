"""What the tests of baselines share: all scores at once, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.baselines import Baseline

Dense = npt.NDArray[np.float64]


def random_interactions(rng: np.random.Generator, shape: tuple[int, int], share: float = 0.2) -> sp.csr_matrix:
    """CSR of ones; nobody took the last item, and the last user took nothing."""
    taken = (rng.random(shape) < share).astype(np.float32)
    taken[:, -1] = taken[-1] = 0
    return sp.csr_matrix(taken)


def scores_of(baseline: Baseline, train: sp.csr_matrix) -> Dense:
    return np.asarray(baseline.score_rows(np.arange(train.shape[0])), dtype=np.float64)
