"""Numbers that stop being finite: the one check of embeddings, wherever they come in, are made or go out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LONGEST = float(np.sqrt(np.finfo(np.float32).max))
"""Of a row, about 1.8e19: inner products of rows no longer than this, and their squared lengths, fit float32."""


def find_flaw(embeddings: npt.NDArray[Any]) -> str | None:
    """Say what keeps embeddings from being scored with. One pass, where all is well.

    Args:
        embeddings: Of any real type, in the one in which they will be used: shape (N, d).

    Returns:
        What is wrong, how often and where first, to stand behind the name of the thing; None where nothing is.
    """
    if embeddings.shape[1] == 0:
        return "dimension 0, so every score would be 0"
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64, casting="same_kind")
    if (squares <= LONGEST**2).all():
        return None
    unfinite = ~np.isfinite(embeddings)
    if unfinite.any():
        first = int(unfinite.any(axis=1).argmax())
        return f"{unfinite.sum():,} of {embeddings.size:,} numbers are not finite, the first in row {first}"
    row = int(squares.argmax())
    return f"row {row} has length {np.sqrt(squares[row]):.2g}, and scores of rows beyond {LONGEST:.2g} overflow float32"
