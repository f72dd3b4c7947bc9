"""The processes that torchrun started: which one this is, and the few things that they tell one another."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from distill.errors import SettingError
from distill.training.trainer import open_device

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)
"""How long ranks wait for one another at the start."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        size: W, how many there are.
        device: Where its part of the table is.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, count: int, rank: int | None = None) -> slice[int, int, None]:
        """Cut `count` rows into W contiguous ranges that differ by at most one row; return that of a rank, or ours."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.size, count * (rank + 1) // self.size)

    def sum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Sum arrays of one shape over the ranks."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def largest(self, value: int) -> int:
        """The largest of the ranks' numbers."""
        return int(self._reduce(np.array([value]), dist.ReduceOp.MAX)[0])

    def _reduce(self, values: npt.NDArray[Any], how: Any) -> npt.NDArray[Any]:
        total = torch.from_numpy(np.array(values)).to(self.device)
        dist.all_reduce(total, how)
        return total.cpu().numpy()

    def gather(self, value: T) -> list[T]:
        """Collect a small object of each rank, in their order."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def gather_rows(self, rows: torch.Tensor, length: int) -> torch.Tensor:
        """Collect rows of all ranks, padded to `length` with −1: shape (W, length, …)."""
        padded = rows.new_full((length, *rows.shape[1:]), -1)
        padded[: len(rows)] = rows
        found = rows.new_empty(self.size * length, *rows.shape[1:])
        dist.all_gather_single(found, padded)
        return found.view(self.size, length, *rows.shape[1:])

    def from_first(self, value: T) -> T:
        """Hand the first rank's object to all."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def share_parameters(self, parameters: list[torch.nn.Parameter]) -> None:
        """Give all ranks the first one's numbers."""
        for parameter in parameters:
            dist.broadcast(parameter.data, src=0)

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Average the gradients of parameters that each rank has whole, in one message; without one counts as 0."""
        if not parameters or self.size == 1:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.size, [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)


def is_started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return dist.is_torchelastic_launched()


@contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """Meet the other processes; leave them at the end.

    Args:
        device: "cpu" (gloo), or "cuda" (NCCL): then each process of a machine takes the GPU of its local rank.

    Raises:
        SettingError: torchrun did not start this process, or there is no such device.
    """
    if not is_started_by_torchrun():
        raise SettingError(
            "sharded: torchrun has to start the ranks, and did not: give "
            "torchrun --nproc-per-node 2 -m lowpass … --sharded (torchrun is a part of torch)"
        )
    chosen = open_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", dist.get_node_local_rank())
        torch.cuda.set_device(chosen)
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_meet(store, rank, size), rank=rank, world_size=size)
    try:
        with warnings.catch_warnings():
            # TorchRec uses names and classes that torch has newer ones for.
            warnings.filterwarnings("ignore", "`torch.distributed|Please use DTensor instead", FutureWarning)
            yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


def _meet(store: Store, rank: int, size: int) -> Store:
    """Agree on a part of torchrun's store that no earlier attempt has written to.

    torchrun keeps one store over its restarts (pytorch/pytorch#135712), where a rank that is started again may read the
    address of one that is dead, and wait for it. Its count of restarts is no remedy: each machine has its own. So each
    process says a word that nobody said before, and goes on once the first rank has answered to that word.
    """
    word = uuid.uuid4().hex
    store.set(f"word/{rank}", word)
    if rank:
        word = store.get(f"answer/{word}").decode()
        store.set(f"met/{word}/{rank}", "")
        return PrefixStore(word, store)
    missing, deadline = set(range(1, size)), time.monotonic() + PATIENCE.total_seconds()
    while missing:
        for other in [other for other in missing if store.check([f"word/{other}"])]:
            store.set(f"answer/{store.get(f'word/{other}').decode()}", word)
        missing = {other for other in missing if not store.check([f"met/{word}/{other}"])}
        if missing and time.monotonic() > deadline:
            raise SettingError(f"nnodes: rank {min(missing)} did not come within {PATIENCE}; start all machines")
        time.sleep(0.01)
    return PrefixStore(word, store)
