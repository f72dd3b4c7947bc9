"""One table of N rows, users first, of which each rank holds a contiguous range: TorchRec's row-wise sharding.

A step reads rows of any range, or weighted sums of rows, by an exchange with their owners, and its backward pass
updates the owners' rows at once (the optimiser is fused: no gradient of the table's shape is ever made). With D bytes
a row (4 d), what the ranks send one another in a step is, for each row or bag on a rank that asks:

- rows: 8 bytes of the id, D of the row, D of its gradient, where its owner is another rank;
- bags: 12 bytes of id and coefficient for each entry owned by another rank; W − 1 partial sums of D bytes and as many
  gradients for each bag, whoever owns its entries.

and 4 (W − 1) bytes of lengths a row or bag. So bags pay where they hold more entries than there are ranks.

TorchRec averages the gradients of the ranks, as data-parallel training does. Whoever wants the gradient of a sum over
the ranks multiplies the loss by W; `train_step` of the trainer does. FBGEMM's fused optimisers on a CPU are SGD and
Adagrad, not Adam: row-wise Adagrad keeps one number a row, where Adam keeps 2 d, and is the same on a GPU.

References:
    Ivchenko et al., "TorchRec: a PyTorch Domain Library for Recommendation Systems", RecSys 2022.
    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", JMLR 2011; one sum of squares a row, the mean over its
    numbers, as in Naumov et al., arXiv 1906.00091.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist

from distill.distributed.ranks import Ranks
from distill.errors import SettingError

try:
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from torchrec import (
        EmbeddingBagCollection,
        EmbeddingBagConfig,
        EmbeddingCollection,
        EmbeddingConfig,
        KeyedJaggedTensor,
        PoolingType,
    )
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
    from torchrec.distributed.types import ShardingEnv
except (ImportError, OSError) as error:
    _missing: Exception | None = error
else:
    _missing = None

# TorchRec asks torch.fx, in each process, what torch.fx warns of being asked.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)

Lookup = Literal["rows", "bags"]
TableOptimizer = Literal["adagrad", "sgd"]
NAME = "table"
EPSILON = 1e-8
INITIAL_BLOCK = 2**16
"""Rows that are drawn by one generator: the table at the start does not depend on the number of ranks."""


@dataclass(frozen=True)
class TableSettings:
    """How the table is read and updated.

    Attributes:
        lookup: "rows", or "bags" where weighted sums of rows are read too.
        optimizer: "adagrad" (row-wise), or "sgd".
        learning_rate: Its.
    """

    lookup: Lookup = "rows"
    optimizer: TableOptimizer = "adagrad"
    learning_rate: float = 0.1

    @property
    def fused(self) -> dict[str, Any]:
        """FBGEMM's words for the same; its weight decay is left alone, because on a CPU its bags ignore it."""
        words = {"learning_rate": self.learning_rate}
        if self.optimizer == "sgd":
            return {**words, "optimizer": EmbOptimType.EXACT_SGD}
        return {**words, "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "eps": EPSILON}


class ShardedTable:
    """The table, and this rank's range of it.

    Attributes:
        first: Number of the first row of the range.
        local: Its rows, a view: shape (rows of the range, d).
        optimizer: Of the settings.
    """

    def __init__(self, num_rows: int, dim: int, ranks: Ranks, settings: TableSettings) -> None:
        """Make the range of this rank, and nothing of the others.

        Args:
            num_rows: N.
            dim: d, a multiple of 4: FBGEMM's rows are aligned.
            ranks: Whom it is shared with.
            settings: How it is read and updated.

        Raises:
            SettingError: TorchRec is not there, d is no multiple of 4, or there are more ranks than rows.
        """
        if _missing is not None:
            raise SettingError(
                f"sharded: needs TorchRec ({_missing}): pip install 'lowpass[distributed]', then "
                "pip install --no-deps torchrec==1.8.0"
            ) from _missing
        if dim % 4:
            raise SettingError(
                f"dim: {dim} is no multiple of 4, as a sharded table's rows must be; give {dim + -dim % 4}"
            )
        if num_rows < ranks.size:
            raise SettingError(f"nproc-per-node: {ranks.size} ranks cannot share {num_rows} rows; start fewer")
        self.shape = (num_rows, dim)
        self._ranks = ranks
        self._lookup = settings.lookup
        self.optimizer = settings.optimizer
        self._module = _shard(num_rows, dim, ranks, settings)
        (tensor,) = self._module.state_dict().values()
        (shard,) = tensor.local_shards()
        self.first = int(shard.metadata.shard_offsets[0])
        self.local: torch.Tensor = shard.tensor

    @property
    def bytes(self) -> int:
        """What this rank holds: its rows and the optimiser's state."""
        return sum(
            shard.tensor.numel() * shard.tensor.element_size()
            for tensor in self.state().values()
            for shard in tensor.local_shards()
        )

    def state(self) -> dict[str, Any]:
        """Name → sharded tensor, of the rows and of the optimiser: views, so loading into them changes the table."""
        (rows,) = self._module.state_dict().values()
        (optimizer,) = self._module.fused_optimizer.state_dict()["state"].values()
        return {NAME: rows, **optimizer}

    def draw(self, seed: int, std: float) -> None:
        """Draw all rows from a normal distribution, the same whatever the number of ranks."""
        last = self.first + len(self.local)
        for block in range(self.first // INITIAL_BLOCK, -(-last // INITIAL_BLOCK)):
            generator = torch.Generator().manual_seed(seed * 2**32 + block)
            rows = torch.randn(INITIAL_BLOCK, self.shape[1], generator=generator) * std
            start = block * INITIAL_BLOCK
            low, high = max(start, self.first), min(start + INITIAL_BLOCK, last)
            self.local[low - self.first : high - self.first] = rows[low - start : high - start].to(self.local.device)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the fused optimiser's step."""
        optimizer = self._module.fused_optimizer
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Fetch rows; each rank calls it together with the others, with ids of its own.

        Args:
            ids: Table rows, each once, int64 of shape (n,); n may differ between ranks.

        Returns:
            Shape (n, d), differentiable: the backward pass updates the rows where they are.
        """
        ones = torch.ones(len(ids), dtype=torch.int32, device=ids.device)
        if self._lookup == "bags":
            return self.bags(ids, ones.float(), ones)
        # TorchRec cannot shape what has no row at all: one of no entry stands for it.
        lengths = ones if len(ids) else ones.new_zeros(1)
        found = self._module(KeyedJaggedTensor([NAME], ids, lengths=lengths))[NAME]
        values: torch.Tensor = found.values()
        return values

    def bags(self, ids: torch.Tensor, weights: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Fetch weighted sums of rows; together with the other ranks, as `rows`.

        Args:
            ids: Table rows, int64 of shape (E,).
            weights: float32 of shape (E,).
            lengths: Entries of each bag, int32 of shape (B,), summing to E; B may differ between ranks.

        Returns:
            Σ weight · row of each bag, shape (B, d), differentiable in the rows.
        """
        # Ranks with unlike numbers of bags need a gather of unlike sizes in the backward pass, which gloo has not.
        missing = self._ranks.largest(len(lengths)) - len(lengths)
        padded = torch.cat([lengths, lengths.new_zeros(missing)])
        found = self._module(KeyedJaggedTensor([NAME], ids, weights=weights, lengths=padded))[NAME]
        sums: torch.Tensor = found[: len(lengths)]
        return sums

    def blocks(self, rows: int) -> Iterator[torch.Tensor]:
        """Bring the whole table to the first rank, a block of at most `rows` rows at a time, in its order.

        All ranks go through it together; on the others the blocks are their own.
        """
        ranges = self._ranks.gather((self.first, len(self.local)))
        for owner, (_, length) in enumerate(ranges):
            for start in range(0, length, rows):
                stop = min(start + rows, length)
                if owner == self._ranks.rank:
                    block = self.local[start:stop].contiguous()
                    if owner:
                        dist.send(block, 0)
                    yield block
                elif self._ranks.is_first:
                    block = self.local.new_empty(stop - start, self.shape[1])
                    dist.recv(block, owner)
                    yield block


def _shard(num_rows: int, dim: int, ranks: Ranks, settings: TableSettings) -> Any:
    """The table as a TorchRec module; the planner refuses row-wise tables on a CPU, so the plan is written by hand."""
    meta = torch.device("meta")
    columns = {"name": NAME, "embedding_dim": dim, "num_embeddings": num_rows, "feature_names": [NAME]}
    if settings.lookup == "bags":
        bag = EmbeddingBagConfig(**columns, pooling=PoolingType.SUM)
        whole = EmbeddingBagCollection(tables=[bag], is_weighted=True, device=meta)
        sharder = EmbeddingBagCollectionSharder(fused_params=settings.fused)
    else:
        whole = EmbeddingCollection(tables=[EmbeddingConfig(**columns)], device=meta)
        sharder = EmbeddingCollectionSharder(fused_params=settings.fused)
    plan = construct_module_sharding_plan(
        whole,
        {NAME: row_wise(compute_kernel="fused")},
        sharder=sharder,
        local_size=ranks.size,
        world_size=ranks.size,
        device_type=ranks.device.type,
    )
    group = dist.group.WORLD
    return sharder.shard(whole, plan, ShardingEnv.from_process_group(group), ranks.device)
