"""A teacher that was trained elsewhere: its embeddings are read, checked, evaluated and written as a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distill.data.interactions import Interactions
from distill.errors import DataError, RunError
from distill.run import METRICS_FILE, write_run
from distill.training.trainer import final_reports

Matrix = npt.NDArray[np.float32]


def import_embeddings(data: Interactions, users: Path, items: Path, out: Path, name: str) -> Mapping[str, Any]:
    """Make a finished run of embeddings.

    Args:
        data: What the rows belong to.
        users: `.npy` of shape (|U|, d) in row order, or Parquet with columns `id` and `embedding`.
        items: Likewise, shape (|I|, d).
        out: The run directory.
        name: Recorded as the run's backbone.

    Returns:
        What `metrics.json` holds.

    Raises:
        DataError: A file is unreadable, or its ids or shape do not fit the data.
        RunError: `out` holds a finished run already.
    """
    if (out / METRICS_FILE).exists():
        raise RunError(f"{out}: a finished run is there; give another --out, or delete it first")
    user_embeddings = read_embeddings(users, data.user_ids)
    item_embeddings = read_embeddings(items, data.item_ids)
    if user_embeddings.shape[1] != item_embeddings.shape[1]:
        raise DataError(
            f"{items}: embeddings are {item_embeddings.shape[1]} wide, those of {users} {user_embeddings.shape[1]}; "
            "both must have one dimension, since the score is their inner product"
        )
    metrics = final_reports(torch.from_numpy(user_embeddings), torch.from_numpy(item_embeddings), data)
    config = {
        "format": 1,
        "backbone": name,
        "method": "imported",
        "dim": int(user_embeddings.shape[1]),
        "seed": None,
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "teacher": None,
    }
    write_run(out, config, user_embeddings, item_embeddings, metrics)
    return metrics


def read_embeddings(path: Path, ids: npt.NDArray[np.str_]) -> Matrix:
    """Read one matrix whose rows follow `ids`.

    Returns:
        float32, shape (len(ids), d).

    Raises:
        DataError: Unreadable, wrong number of rows, an id missing or twice, or a value that is not finite.
    """
    try:
        matrix = _read_parquet(path, ids) if path.suffix in {".parquet", ".pq"} else _read_npy(path)
    except (OSError, ValueError, TypeError, KeyError, EOFError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: unreadable embeddings ({error}); give .npy, or Parquet with 'id' and 'embedding'"
        ) from error
    if matrix.ndim != 2 or len(matrix) != len(ids):
        raise DataError(
            f"{path}: shape {matrix.shape} where ({len(ids)}, d) is needed; one row for each id of the data"
        )
    if not np.issubdtype(matrix.dtype, np.number) or not np.isfinite(matrix).all():
        raise DataError(f"{path}: holds values that are not finite numbers; export the embeddings again")
    return np.ascontiguousarray(matrix, dtype=np.float32)


def _read_npy(path: Path) -> npt.NDArray[Any]:
    with path.open("rb") as stream:
        matrix: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return matrix


def _read_parquet(path: Path, ids: npt.NDArray[np.str_]) -> npt.NDArray[Any]:
    absent = {"id", "embedding"} - set(pq.read_schema(path).names)
    if absent:
        raise DataError(f"{path}: column '{min(absent)}' is missing; give columns 'id' and 'embedding'")
    table = pq.read_table(path, columns=["id", "embedding"])
    rows = {str(value): row for row, value in enumerate(table["id"].to_pylist())}
    if len(rows) != table.num_rows:
        raise DataError(f"{path}: column 'id' has duplicates; give each id once")
    missing = [str(value) for value in ids if str(value) not in rows]
    if missing:
        raise DataError(
            f"{path}: column 'id' lacks {len(missing)} ids of the data, '{missing[0]}' first; add their rows"
        )
    widths = {len(value) for value in table["embedding"].to_pylist()}
    if len(widths) != 1:
        raise DataError(f"{path}: column 'embedding' holds lists of different lengths; make them one dimension")
    order = [rows[str(value)] for value in ids]
    return np.asarray(table["embedding"].to_pylist(), dtype=np.float32)[order]
