"""A run: what training leaves behind and what `export` reads.

A run directory holds

- `config.json`: every setting that produced it, the data's name and fingerprint, the teacher's run (if any);
- `embeddings.safetensors`: `user_embeddings` (|U|, d) and `item_embeddings` (|I|, d), float32, final features
  whose inner product is the score;
- `metrics.json`: validation and test reports with their convention, seconds and peak memory;
- `history.csv`: a line an evaluated epoch: epoch, losses, validation metrics, seconds;
- `checkpoint.*`: what a resumed run continues from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from distill.data.interactions import Interactions
from distill.errors import RunError
from distill.storage import write_file

CONFIG_FILE = "config.json"
EMBEDDINGS_FILE = "embeddings.safetensors"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.csv"


@dataclass(frozen=True)
class Run:
    """A finished run, read from disk.

    Attributes:
        path: The run directory.
        config: Settings as written by training; has `backbone`, `method`, `dim`, `data` {name, fingerprint},
            `teacher` (path or None) and `seed`.
        user_embeddings: float32, shape (|U|, d).
        item_embeddings: float32, shape (|I|, d).
        metrics: {"validation": report, "test": report, ...}; empty where never evaluated.
    """

    path: Path
    config: Mapping[str, Any]
    user_embeddings: npt.NDArray[np.float32]
    item_embeddings: npt.NDArray[np.float32]
    metrics: Mapping[str, Any]

    @property
    def dim(self) -> int:
        """Embedding dimension d."""
        return int(self.item_embeddings.shape[1])

    def require_same_data(self, data: Interactions) -> None:
        """Check that the run's rows are the rows of `data`.

        Raises:
            RunError: The run was trained on other data.
        """
        if self.config.get("data", {}).get("fingerprint") != data.fingerprint:
            raise RunError(
                f"{self.path / CONFIG_FILE}: data.fingerprint is not that of data set '{data.name}'; "
                "give the data directory this run was trained on"
            )


def write_run(
    path: Path,
    config: Mapping[str, Any],
    user_embeddings: npt.NDArray[np.float32],
    item_embeddings: npt.NDArray[np.float32],
    metrics: Mapping[str, Any],
) -> None:
    """Write the three files that make `path` a run; `metrics.json` comes last and marks it finished."""
    tensors = {
        "user_embeddings": np.ascontiguousarray(user_embeddings, dtype=np.float32),
        "item_embeddings": np.ascontiguousarray(item_embeddings, dtype=np.float32),
    }
    write_file(path / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())
    write_file(path / EMBEDDINGS_FILE, save(tensors))
    write_file(path / METRICS_FILE, (json.dumps(metrics, indent=2) + "\n").encode())


def open_run(path: Path) -> Run:
    """Read a finished run.

    Raises:
        RunError: `path` is not a finished run, or a file of it is unreadable.
    """
    if not (path / METRICS_FILE).is_file():
        raise RunError(
            f"{path}: no finished run there ({METRICS_FILE} is missing); train it, or resume it with --resume"
        )
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        metrics = json.loads((path / METRICS_FILE).read_text(encoding="utf-8"))
        tensors = load_file(path / EMBEDDINGS_FILE)
        return Run(path, config, tensors["user_embeddings"], tensors["item_embeddings"], metrics)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(f"{path}: unreadable run ({error}); train it again") from error
