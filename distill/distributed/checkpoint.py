"""Checkpoints of ranks that train together, by `torch.distributed.checkpoint`: written by some, read by any number.

Each rank writes its range as safetensors (no pickle is involved), on a disk that all see. What counts is named by
`checkpoint.json`, which the first rank renames into place once all have written; so a rank that dies while writing
leaves the checkpoint before. Random state needs no place here: every epoch draws from generators seeded by (seed,
epoch).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from distill.distributed.ranks import Ranks
from distill.distributed.table import NAME, ShardedTable
from distill.errors import RunError
from distill.storage import write_file
from distill.training.checkpoint import STATE_FILE, Progress, read_state

LAST, BEST = "checkpoint", "best"
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, AssertionError, SafetensorError, CheckpointException)
# It warns on every save that nothing is consolidated, which is what is wanted.
logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Training:
    """What is kept of a training.

    Attributes:
        table: The student.
        objective: Its parameters are whole on each rank.
        optimizer: Of those parameters, or None where there are none.
    """

    table: ShardedTable
    objective: nn.Module
    optimizer: torch.optim.Optimizer | None

    def state(self) -> dict[str, Any]:
        """Name → tensor; loading into them restores the training."""
        tensors: dict[str, Any] = {**self.table.state()}
        tensors.update({f"objective.{name}": value.detach() for name, value in self.objective.named_parameters()})
        if self.optimizer is not None:
            for index, parameter in enumerate(self.objective.parameters()):
                moments = _moments(self.optimizer, parameter)
                tensors.update({f"optimizer.{index}.{name}": value for name, value in moments.items()})
        return tensors


def _moments(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Adam's state of a parameter, made where no step has been taken yet."""
    state: dict[str, torch.Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    return state


def save_best(out: Path, epoch: int, table: ShardedTable, ranks: Ranks) -> None:
    """Write the table's rows as the best so far."""
    _write(out / f"{BEST}-{epoch}", {NAME: table.state()[NAME]}, ranks)


def load_best(out: Path, epoch: int, table: ShardedTable) -> None:
    """Read the best rows into the table.

    Raises:
        RunError: They are not there, or unreadable.
    """
    _read(out / f"{BEST}-{epoch}", {NAME: table.state()[NAME]})


def save(out: Path, config: Mapping[str, Any], progress: Progress, training: Training, ranks: Ranks) -> None:
    """Write a checkpoint, and remove what it replaces."""
    folder = f"{LAST}-{progress.epoch}"
    _write(out / folder, training.state(), ranks)
    if ranks.is_first:
        state = {"folder": folder, "config": config, "progress": asdict(progress), "ranks": ranks.size}
        write_file(out / STATE_FILE, (json.dumps(state) + "\n").encode())
        _remove(out, but={folder, f"{BEST}-{progress.best_epoch}"})
    ranks.gather(None)


def load(out: Path, config: Mapping[str, Any], training: Training) -> Progress:
    """Restore a training in place, from the checkpoint of however many ranks.

    Raises:
        RunError: No checkpoint there, unreadable, or of a run with other settings.
    """
    folder, progress = read_state(out, config, "folder")
    _read(out / folder, training.state())
    return progress


def remove_checkpoints(out: Path) -> None:
    """Remove what a finished run needs no longer; the first rank alone calls it."""
    (out / STATE_FILE).unlink(missing_ok=True)
    _remove(out, but=set())


def _write(folder: Path, tensors: dict[str, Any], ranks: Ranks) -> None:
    if ranks.is_first:
        shutil.rmtree(folder, ignore_errors=True)  # of a training that was killed here
    ranks.gather(None)
    save_tensors(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def _read(folder: Path, tensors: dict[str, Any]) -> None:
    try:
        load_tensors(tensors, storage_reader=HuggingFaceStorageReader(str(folder)))
    except UNREADABLE as error:
        first = str(error).strip().partition("\n")[0]
        raise RunError(f"{folder}: unreadable checkpoint ({first}); start again without --resume") from error


def _remove(out: Path, but: set[str]) -> None:
    for folder in [*out.glob(f"{LAST}-*"), *out.glob(f"{BEST}-*")]:
        if folder.name not in but and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
