"""A teacher that was trained elsewhere: its embeddings are read, checked, evaluated and written as a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distill.baselines.neighbors import popularity
from distill.data.interactions import Interactions
from distill.errors import DataError, RunError, SettingError
from distill.evaluation.protocol import evaluate_scores, report_splits
from distill.finite import find_flaw
from distill.run import METRICS_FILE, write_run
from distill.training.row_order import PARQUET, order_rows, read_ids
from distill.training.trainer import final_reports

Matrix = npt.NDArray[np.float32]
COMPARED = "NDCG@20"


def import_embeddings(
    data: Interactions,
    users: Path,
    items: Path,
    out: Path,
    name: str,
    *,
    users_ids: Path | None = None,
    items_ids: Path | None = None,
) -> Mapping[str, Any]:
    """Make a finished run of embeddings.

    Args:
        data: What the rows belong to.
        users: `.npy` of shape (|U|, d) in row order, or Parquet with columns `id` and `embedding`.
        items: Likewise, shape (|I|, d).
        out: The run directory.
        name: Recorded as the run's backbone.
        users_ids: Ids of the rows of a `.npy`, as `read_ids` reads them, which may then be more, and in any order.
        items_ids: Likewise.

    Returns:
        What `metrics.json` holds. Its "import" says of "users" and "items" how their rows were put in order, holds the
        reports of "popularity", and in "doubt" what speaks against the order, or None.

    Raises:
        DataError: A file is unreadable, its ids or shape do not fit the data, or its numbers cannot be scored with.
        RunError: `out` holds a finished run already.
    """
    if (out / METRICS_FILE).exists():
        raise RunError(f"{out}: a finished run is there; give another --out, or delete it first")
    user_embeddings, users_order = read_embeddings(users, data.user_ids, users_ids)
    item_embeddings, items_order = read_embeddings(items, data.item_ids, items_ids)
    if user_embeddings.shape[1] != item_embeddings.shape[1]:
        raise DataError(
            f"{items}: embeddings are {item_embeddings.shape[1]} wide, those of {users} {user_embeddings.shape[1]}; "
            "both must have one dimension, since the score is their inner product"
        )
    reports = final_reports(torch.from_numpy(user_embeddings), torch.from_numpy(item_embeddings), data)
    popular = report_splits(partial(evaluate_scores, popularity(data.train).score_rows, data), data)
    understood = {"users": users_order, "items": items_order, "popularity": popular, "doubt": _doubt(reports, popular)}
    metrics = {**reports, "import": understood}
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


def _doubt(reports: Mapping[str, Any], popular: Mapping[str, Any]) -> str | None:
    """What is wrong with embeddings that know less of the users than a count of the items."""
    split = next((name for name in ("test", "validation") if name in reports), None)
    if split is None or reports[split][COMPARED] > popular[split][COMPARED]:
        return None
    return (
        "no better than popularity: the rows are probably not in the order of the data, or the score is not the inner "
        "product; give the ids of the rows"
    )


def read_embeddings(path: Path, ids: npt.NDArray[np.str_], ids_file: Path | None = None) -> tuple[Matrix, str]:
    """Read one matrix and put its rows in the order of `ids`.

    Args:
        path: As `users` of `import_embeddings`.
        ids: Ids of the data.
        ids_file: As `users_ids` of `import_embeddings`.

    Returns:
        float32, shape (len(ids), d), and how its rows were put in order, in words.

    Raises:
        DataError: Unreadable, wrong number of rows, an id missing or twice, or numbers that cannot be scored with.
        SettingError: Ids are given for a file that has its own.
    """
    if ids_file is not None and path.suffix in PARQUET:
        raise SettingError(f"{ids_file}: {path} has ids of its own, in its column 'id'; leave the other ids out")
    try:
        row_ids, matrix = _read_parquet(path) if path.suffix in PARQUET else (None, _read_npy(path))
    except (OSError, ValueError, TypeError, KeyError, EOFError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: unreadable embeddings ({error}); give .npy, or Parquet with 'id' and 'embedding'"
        ) from error
    _require_real(path, matrix.dtype)
    if ids_file is not None:
        row_ids = read_ids(ids_file)
    if matrix.ndim != 2 or len(matrix) != len(ids if row_ids is None else row_ids):
        wanted = "one row for each id " + ("of the data" if ids_file is None else f"of {ids_file}")
        number = len(ids if row_ids is None else row_ids)
        raise DataError(f"{path}: shape {matrix.shape} where ({number}, d) is needed; {wanted}")
    if row_ids is None:
        understood = f"order of rows taken on trust, since {path.name} has no ids"
    else:
        order, understood = order_rows(ids_file or path, row_ids, ids)
        matrix = matrix[order]
    with np.errstate(over="ignore"):
        embeddings = np.ascontiguousarray(matrix, dtype=np.float32)
    if flaw := find_flaw(embeddings):
        raise DataError(f"{path}: as float32 {flaw}; export embeddings that fit, scaled down where they are large")
    return embeddings, understood


def _read_npy(path: Path) -> npt.NDArray[Any]:
    with path.open("rb") as stream:
        matrix: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return matrix


def _require_real(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind in "fiu":
        return
    is_bfloat16 = dtype.kind == "V" and dtype.itemsize == 2  # NumPy has no name for it
    kind = "bfloat16 (dtype V2)" if is_bfloat16 else f"values of type {dtype}"
    kind = f"complex numbers ({dtype})" if dtype.kind == "c" else kind
    raise DataError(f"{path}: holds {kind}, not real numbers that NumPy knows; save as float32")


def _read_parquet(path: Path) -> tuple[list[str], npt.NDArray[Any]]:
    absent = {"id", "embedding"} - set(pq.read_schema(path).names)
    if absent:
        raise DataError(f"{path}: column '{min(absent)}' is missing; give columns 'id' and 'embedding'")
    table = pq.read_table(path, columns=["id", "embedding"])
    embeddings = table["embedding"].to_pylist()
    if len({len(value) for value in embeddings}) != 1:
        raise DataError(f"{path}: column 'embedding' holds lists of different lengths; make them one dimension")
    return [str(value) for value in table["id"].to_pylist()], np.asarray(embeddings, dtype=np.float64)
