"""What a rank sends to the others, counted where collectives are called, whoever calls them."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

EXCHANGES = ("all_to_all_single",)
SCATTERS = ("reduce_scatter", "reduce_scatter_tensor", "_reduce_scatter_base")
BROADCASTS = ("all_gather", "all_gather_into_tensor", "all_gather_single", "_all_gather_base", "all_reduce")
INPUTS = ("input", "input_list", "input_tensor", "tensor")


def count_sent(name: str, given: dict[str, Any]) -> tuple[int, str]:
    """Bytes of one call that are for the other ranks, as an all-to-all would send them, and what they are.

    Args:
        name: Of the collective.
        given: Its arguments by name.
    """
    sent = next(given[key] for key in INPUTS if key in given)
    tensors: list[torch.Tensor] = sent if isinstance(sent, list) else [sent]
    whole, size = sum(part.numel() * part.element_size() for part in tensors), dist.get_world_size()
    kind = str(tensors[0].dtype).removeprefix("torch.")
    if name in SCATTERS:
        return whole * (size - 1) // size, kind
    if name in BROADCASTS:
        return whole * (size - 1), kind
    rows = len(tensors[0])
    splits = given.get("input_split_sizes")
    kept = splits[dist.get_rank()] if splits else rows // size
    return whole // max(rows, 1) * (rows - kept), kind


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the bytes that this rank hands to collectives for the others: by the collective and the type of numbers."""
    found: Counter[str] = Counter()

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(call)

        def wrapped(*arguments: Any, **words: Any) -> Any:
            sent, kind = count_sent(name, signature.bind(*arguments, **words).arguments)
            found[f"{name} {kind}"] += sent
            return call(*arguments, **words)

        return wrapped

    with ExitStack() as patches:
        for name in (*EXCHANGES, *SCATTERS, *BROADCASTS):
            patches.enter_context(mock.patch.object(dist, name, wrap(name, getattr(dist, name))))
        yield found


def formula(step: dict[str, Any], rank: int, row: int) -> int:
    """Bytes that a rank sends in a step of two, without the dozens that say how long the messages are.

    Args:
        step: What `two_ranks` found: `asked` (entries, foreign ones, answers) of each rank, `told`, `projectors`.
        rank: Of the sender.
        row: D, bytes of a row of the table.
    """
    mine, other = step["asked"][rank], step["asked"][1 - rank]
    if not step["told"]:
        return int(8 * mine["foreign"] + 4 * mine["answers"] + row * (other["foreign"] + mine["foreign"]))
    bags = max(mine["answers"], other["answers"])
    return int(12 * mine["foreign"] + 4 * bags + 2 * row * bags + 16 * step["told"] + step["projectors"] + 8)
