"""Checkpoints: everything a run needs to go on exactly where it stopped, as safetensors and JSON.

Random state needs no place here: every epoch draws from a generator seeded by (seed, epoch).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from distill.errors import RunError
from distill.storage import publish_file, write_file

STATE_FILE = "checkpoint.json"


@dataclass
class Progress:
    """Where training stands.

    Attributes:
        epoch: Epochs done.
        best_epoch: Epoch of the best validation metric; 0 before the first evaluation.
        best_value: That metric.
        seconds: Training time so far, evaluation left out, seconds.
        processor_seconds: Processor time of the same, which a busy machine does not stretch.
        history: One row an evaluated epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_value: float = -1.0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


Embeddings = tuple[torch.Tensor, torch.Tensor]


def save_checkpoint(
    directory: Path,
    config: Mapping[str, Any],
    progress: Progress,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    best: Embeddings | None,
    trajectory: Mapping[int, Embeddings],
) -> None:
    """Write a checkpoint; the tensor file's name is in the JSON, which is renamed into place last.

    Args:
        directory: The run directory.
        config: The run's settings, compared on resume.
        progress: Kept whole, as the states of modules and optimizer are.
        modules: Name → module; `load_checkpoint` is given the same names.
        optimizer: Of the modules' parameters.
        best: The best user and item embeddings so far, shapes (|U|, d) and (|I|, d).
        trajectory: Epoch → what was best then, as far as it is kept.
    """
    tensors = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{key}": value for key, value in state.items()})
    kept = {f"past-{epoch}": embeddings for epoch, embeddings in trajectory.items()}
    for name, (users, items) in (kept if best is None else {**kept, "best": best}).items():
        tensors.update({f"{name}.user_embeddings": users, f"{name}.item_embeddings": items})
    tensors_file = f"checkpoint-{progress.epoch}.safetensors"
    with publish_file(directory / tensors_file) as draft:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, draft)
    state = {"tensors_file": tensors_file, "config": config, "progress": asdict(progress)}
    write_file(directory / STATE_FILE, (json.dumps(state) + "\n").encode())
    _remove_tensors(directory, but=tensors_file)


def remove_checkpoints(directory: Path) -> None:
    """Remove what a finished run needs no longer, and what a killed one left half-written."""
    (directory / STATE_FILE).unlink(missing_ok=True)
    _remove_tensors(directory)


def _remove_tensors(directory: Path, but: str = "") -> None:
    for old in [*directory.glob("checkpoint-*.safetensors"), *directory.glob(".checkpoint-*.draft")]:
        if old.name != but:
            old.unlink(missing_ok=True)


def load_checkpoint(
    directory: Path,
    config: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
) -> tuple[Progress, Embeddings | None, dict[int, Embeddings]]:
    """Restore modules and optimizer in place.

    Returns:
        Progress, the best embeddings so far, and the trajectory as it was saved.

    Raises:
        RunError: No checkpoint there, unreadable, or of a run with other settings.
    """
    path = directory / STATE_FILE
    tensors_file, progress = read_state(directory, config, "tensors_file")
    try:
        tensors = load_file(directory / tensors_file)
        for name, module in modules.items():
            module.load_state_dict(_with_prefix(tensors, f"{name}."))
        _restore_optimizer(optimizer, _with_prefix(tensors, "optimizer."))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{path}: unreadable checkpoint ({error}); start again without --resume") from error
    best = _embeddings(tensors, "best") if "best.user_embeddings" in tensors else None
    names = [key.removesuffix(".user_embeddings") for key in tensors if key.startswith("past-") and "user" in key]
    epochs = {int(name.removeprefix("past-")): _embeddings(tensors, name) for name in names}
    return progress, best, dict(sorted(epochs.items()))


def read_state(directory: Path, config: Mapping[str, Any], where: str) -> tuple[str, Progress]:
    """Read what a checkpoint says beside its tensors.

    Args:
        directory: The run directory.
        config: The run's settings.
        where: Key of the name under which the tensors lie.

    Returns:
        That name, and the progress.

    Raises:
        RunError: No checkpoint there, unreadable, or of a run with other settings.
    """
    path = directory / STATE_FILE
    if not path.is_file():
        raise RunError(f"{path}: no checkpoint to resume from; start without --resume")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        name, saved, progress = str(state[where]), state["config"], Progress(**state["progress"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: unreadable checkpoint ({error}); start again without --resume") from error
    require_same_settings(path, saved, config, "resume with the run's own settings or start a new run")
    return name, progress


def require_same_settings(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str) -> None:
    """Compare all settings of two runs but the paths of others: their fingerprints say whether they are the same.

    Args:
        path: The file that holds `saved`.
        saved: What `job.describe` said then.
        wanted: What it says now.
        remedy: Ends the message.

    Raises:
        RunError: A setting differs; the first one is named, with both values.
    """
    before, now = _flatten(saved), _flatten(json.loads(json.dumps(wanted)))
    for key in sorted({*before, *now} - {"teacher", "continue_from"}):
        if before.get(key) != now.get(key):
            raise RunError(f"{path}: '{key}' was {before.get(key)!r} and is now {now.get(key)!r}; {remedy}")


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every leaf by its dotted path, so that the one setting that differs can be named."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        leaves.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return leaves


def _embeddings(tensors: Mapping[str, torch.Tensor], name: str) -> Embeddings:
    return tensors[f"{name}.user_embeddings"], tensors[f"{name}.item_embeddings"]


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    whole = optimizer.state_dict()
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**whole, "state": states})
