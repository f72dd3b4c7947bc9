"""Numbers that stop being finite: the one check of embeddings, wherever they come in, are made or go out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

LONGEST = float(np.sqrt(np.finfo(np.float32).max))
"""Of a row, about 1.8e19: inner products of rows no longer than this, and their squared lengths, fit float32."""
BLOCK_NUMBERS = 2**22
"""Of a block of rows that is looked at at once: 16 MiB of float32."""


def find_flaw(embeddings: npt.NDArray[Any] | torch.Tensor) -> str | None:
    """Say what keeps embeddings from being scored with. One pass, a block of rows at a time, where all is well.

    Args:
        embeddings: Of any real type, in the one in which they will be used, on any device: shape (N, d).

    Returns:
        What is wrong, how often and where first, to stand behind the name of the thing; None where nothing is.
    """
    if embeddings.shape[1] == 0:
        return "dimension 0, so every score would be 0"
    longest, longest_row = 0.0, 0
    for start, block in blocks_of_rows(embeddings):
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("nd,nd->n", block, block, dtype=np.float64, casting="same_kind")
        if not np.isfinite(squares).all() and not np.isfinite(block).all():
            return _describe_unfinite(embeddings)
        row = int(squares.argmax())
        if squares[row] > longest:
            longest, longest_row = float(squares[row]), start + row
    if longest <= LONGEST**2:
        return None
    return (
        f"row {longest_row} has length {np.sqrt(longest):.2g}, and scores of rows beyond {LONGEST:.2g} overflow float32"
    )


def blocks_of_rows(embeddings: npt.NDArray[Any] | torch.Tensor) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the first row and the rows of each block of embeddings, mapped or on a device, shape (N, d)."""
    rows = max(1, BLOCK_NUMBERS // max(1, embeddings.shape[1]))
    for start in range(0, len(embeddings), rows):
        block = embeddings[start : start + rows]
        yield start, block if isinstance(block, np.ndarray) else block.detach().cpu().numpy()


def _describe_unfinite(embeddings: npt.NDArray[Any] | torch.Tensor) -> str:
    count, first = 0, -1
    for start, block in blocks_of_rows(embeddings):
        unfinite = ~np.isfinite(block)
        if first < 0 and unfinite.any():
            first = start + int(unfinite.any(axis=1).argmax())
        count += int(unfinite.sum())
    size = embeddings.shape[0] * embeddings.shape[1]
    return f"{count:,} of {size:,} numbers are not finite, the first in row {first}"
