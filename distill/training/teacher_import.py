"""A teacher that was trained elsewhere: its embeddings are read, checked, evaluated and written as a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distill.data.interactions import Interactions
from distill.embeddings_file import Vectors
from distill.errors import DataError, RunError, SettingError
from distill.evaluation.protocol import evaluate_lists, report_splits
from distill.evaluation.ranking import rank_alike
from distill.finite import blocks_of_rows, find_flaw
from distill.run import METRICS_FILE, write_ids, write_run
from distill.training.parquet_embeddings import ParquetEmbeddings
from distill.training.row_order import PARQUET, order_rows, read_ids
from distill.training.trainer import final_reports

COMPARED = "NDCG@20"
KEPT_DTYPES = (np.float16, np.float32)
"""Of embeddings: others become float32."""


def import_embeddings(
    data: Interactions,
    users: Path,
    items: Path,
    out: Path,
    name: str,
    *,
    users_ids: Path | None = None,
    items_ids: Path | None = None,
    eval_users: int | None = None,
    progress: bool = False,
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
        eval_users: On how many users quality is measured, as in `Protocol`.
        progress: Show a bar while files are read.

    Returns:
        What `metrics.json` holds. Its "import" says of "users" and "items" how their rows were put in order, holds the
        reports of "popularity", and in "doubt" what speaks against the order, or None.

    Raises:
        DataError: A file is unreadable, its ids or shape do not fit the data, or its numbers cannot be scored with.
        RunError: `out` holds a finished run already.
    """
    if (out / METRICS_FILE).exists():
        raise RunError(f"{out}: a finished run is there; give another --out, or delete it first")
    user_embeddings, users_order = read_embeddings(users, data.user_ids, users_ids, progress=progress)
    item_embeddings, items_order = read_embeddings(items, data.item_ids, items_ids, progress=progress)
    if user_embeddings.shape[1] != item_embeddings.shape[1]:
        raise DataError(
            f"{items}: embeddings are {item_embeddings.shape[1]} wide, those of {users} {user_embeddings.shape[1]}; "
            "both must have one dimension, since the score is their inner product"
        )
    reports = final_reports(user_embeddings, item_embeddings, data, eval_users)
    count_order = partial(rank_alike, np.bincount(data.train.indices, minlength=data.num_items))
    popular = report_splits(lambda protocol: evaluate_lists(count_order, data, protocol), data, eval_users)
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
    write_ids(out, data.user_ids, data.item_ids)
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


def read_embeddings(
    path: Path, ids: npt.NDArray[np.str_], ids_file: Path | None = None, *, progress: bool = False
) -> tuple[Vectors, str]:
    """Read one matrix and put its rows in the order of `ids`.

    A `.npy` whose rows are taken as they stand is mapped; else the matrix is in memory, once.

    Args:
        path: As `users` of `import_embeddings`.
        ids: Ids of the data.
        ids_file: As `users_ids` of `import_embeddings`.
        progress: Show a bar where somebody looks.

    Returns:
        float32, or float16 where the file has that: shape (len(ids), d), and how its rows were put in order, in words.

    Raises:
        DataError: Unreadable, wrong number of rows, an id missing or twice, or numbers that cannot be scored with.
        SettingError: Ids are given for a file that has its own.
    """
    if ids_file is not None and path.suffix in PARQUET:
        raise SettingError(f"{ids_file}: {path} has ids of its own, in its column 'id'; leave the other ids out")
    try:
        if path.suffix in PARQUET:
            embeddings, understood = _read_parquet(path, ids, progress)
        else:
            embeddings, understood = _read_npy(path, ids, ids_file)
    except (OSError, ValueError, TypeError, KeyError, EOFError, OverflowError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: unreadable embeddings ({error}); give .npy, or Parquet with 'id' and 'embedding'"
        ) from error
    if flaw := find_flaw(embeddings):
        raise DataError(
            f"{path}: as {embeddings.dtype} {flaw}; export embeddings that fit, scaled down where they are large"
        )
    return embeddings, understood


def _read_parquet(path: Path, ids: npt.NDArray[np.str_], progress: bool) -> tuple[Vectors, str]:
    source = ParquetEmbeddings(path)
    order, understood = order_rows(path, source.read_ids(), ids)
    return source.read_rows(order, progress=progress), understood


def _read_npy(path: Path, ids: npt.NDArray[np.str_], ids_file: Path | None) -> tuple[Vectors, str]:
    # Copy on write: torch warns of arrays that are read-only.
    mapped = np.lib.format.open_memmap(path, mode="c")
    if (more := path.stat().st_size - mapped.offset - mapped.nbytes) > 0:
        raise ValueError(f"{more:,} bytes stand behind the {mapped.shape} array that its header tells of")
    matrix = mapped.view(np.ndarray)
    _require_real(path, matrix.dtype)
    row_ids = None if ids_file is None else read_ids(ids_file)
    if matrix.ndim != 2 or len(matrix) != len(ids if row_ids is None else row_ids):
        wanted = "one row for each id " + ("of the data" if ids_file is None else f"of {ids_file}")
        number = len(ids if row_ids is None else row_ids)
        raise DataError(f"{path}: shape {matrix.shape} where ({number}, d) is needed; {wanted}")
    if row_ids is None:
        understood = f"order of rows taken on trust, since {path.name} has no ids"
    else:
        order, understood = order_rows(ids_file or path, row_ids, ids)
        matrix = matrix[order]
    return _as_kept(matrix), understood


def _as_kept(matrix: npt.NDArray[Any]) -> Vectors:
    native = matrix.dtype.newbyteorder("=")
    dtype = native if native in KEPT_DTYPES else np.dtype(np.float32)
    if matrix.dtype == dtype and matrix.flags.c_contiguous:
        return matrix
    kept = np.empty(matrix.shape, dtype)
    for start, block in blocks_of_rows(matrix):
        with np.errstate(over="ignore"):
            kept[start : start + len(block)] = block
    return kept


def _require_real(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind in "fiu":
        return
    is_bfloat16 = dtype.kind == "V" and dtype.itemsize == 2  # NumPy has no name for it
    kind = "bfloat16 (dtype V2)" if is_bfloat16 else f"values of type {dtype}"
    kind = f"complex numbers ({dtype})" if dtype.kind == "c" else kind
    raise DataError(f"{path}: holds {kind}, not real numbers that NumPy knows; save as float32")
