"""The k highest of each row of scores, exactly, at little more than one pass over them.

Selecting k of |I| scores a row by a heap or a partition costs several times the matrix product that made them
where d is small. Here the catalogue is cut into groups of `GROUP` columns. A group that holds one of the k
best scores has one of the k highest maxima (were its maximum below k others, so would be all its scores), so
only the columns of k groups are compared. Taking maxima is a single pass over a chunk that is still in cache.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

GROUP = 64

Top = Callable[[torch.Tensor, int], torch.Tensor]
"""Scores (B, W) and k → columns of the k highest of each row, best first: `any_top` or `stable_top`."""


def padded_width(num_items: int) -> int:
    """Columns of a buffer for `top_columns`: whole groups and one for the rest, which also keeps every row aligned."""
    return GROUP * (num_items // GROUP + 1)


def any_top(values: torch.Tensor, k: int) -> torch.Tensor:
    """Columns of the k highest of each row; torch leaves open which of several equal ones."""
    return values.topk(k, dim=1).indices


def stable_top(values: torch.Tensor, k: int) -> torch.Tensor:
    """Columns of the k highest of each row, equal ones from left to right."""
    return values.sort(dim=1, descending=True, stable=True).indices[:, :k]


def top_columns(scores: torch.Tensor, num_items: int, k: int, top: Top) -> torch.Tensor:
    """Columns of the k highest among the first `num_items` scores of each row, best first.

    Equal scores: x in group g is among the k first, from left to right, only if fewer than k groups have a higher
    maximum, or the same one further left; so this is stable where `top` is.

    Args:
        scores: Contiguous, shape (B, `padded_width(num_items)`).
        num_items: |I|.
        k: At most |I|.
        top: `any_top` or `stable_top`.

    Returns:
        int64, shape (B, k).
    """
    num_rows, full = len(scores), num_items // GROUP
    if full <= k:
        return top(scores[:, :num_items], k)
    maxima = scores.view(num_rows, full + 1, GROUP)[:, :full].amax(dim=2)
    # The last group is not full, so it is always looked at, and cut off where the catalogue ends.
    groups = F.pad(top(maxima, k).sort(dim=1).values, (0, 1), value=full)
    first_group = torch.arange(0, num_rows * (full + 1), full + 1, device=scores.device)
    found = scores.view(-1, GROUP).index_select(0, (first_group[:, None] + groups).view(-1)).view(num_rows, -1)
    best = top(found[:, : k * GROUP + num_items % GROUP], k)
    return groups.gather(1, best // GROUP) * GROUP + best % GROUP


def columns_above(scores: torch.Tensor, bar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the scores above each row's bar, and NaN.

    Args:
        scores: Shape (B, W), W a multiple of `GROUP`; few are above.
        bar: Shape (B,).

    Returns:
        Rows and columns, row by row and from left to right, int64 of shape (n,) each.
    """
    groups = scores.view(len(scores), -1, GROUP)
    rows, numbers = (~(groups.amax(dim=2) <= bar[:, None])).nonzero(as_tuple=True)
    which, places = (~(groups[rows, numbers] <= bar[rows, None])).nonzero(as_tuple=True)
    return rows[which], numbers[which] * GROUP + places
