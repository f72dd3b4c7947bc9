"""Embeddings in Parquet, columns `id` and `embedding`: read some thousand rows at a time into their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from distill.embeddings_file import Vectors
from distill.errors import DataError
from distill.evaluation.metrics import Rows
from distill.training.row_order import read_id_column

BATCH_ROWS = 16_384


class ParquetEmbeddings:
    """A file of embeddings.

    Args:
        path: Of the file.

    Raises:
        DataError: A column is missing, or there twice.
        ArrowException: The file is unreadable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = pq.ParquetFile(path, page_checksum_verification=True)  # where its writer made checksums
        for name in ("id", "embedding"):
            count = self._file.schema_arrow.names.count(name)
            if count != 1:
                flaw = "is missing" if count == 0 else f"is there {count} times"
                raise DataError(f"{path}: column '{name}' {flaw}; give one column 'id' and one 'embedding'")

    def read_ids(self) -> list[str]:
        """The ids of the rows, as text, in their order; raises as `read_id_column`."""
        return read_id_column(self.path, self._file.read(columns=["id"])["id"])

    def read_rows(self, wanted: Rows, *, progress: bool = False) -> Vectors:
        """Read some rows in a given order, without the others in memory.

        Args:
            wanted: Rows of the file, each once, shape (n,).
            progress: Show a bar where somebody looks.

        Returns:
            float32, or float16 where the file has that: shape (n, d).

        Raises:
            DataError: Lists differ in length.
            TypeError: The column holds no lists of numbers, or a list is missing.
            ArrowException: The file is unreadable.
        """
        target = np.full(self._file.metadata.num_rows, -1, dtype=np.int64)
        target[wanted] = np.arange(len(wanted))
        embeddings: Vectors | None = None
        start = 0
        bar = tqdm(
            total=len(target), desc=self.path.name, unit="row", disable=None if progress else True, leave=False, delay=2
        )
        with bar:
            for batch in self._file.iter_batches(BATCH_ROWS, columns=["embedding"]):
                rows = self._matrix(batch.column(0))
                if embeddings is None:
                    embeddings = np.empty((len(wanted), rows.shape[1]), rows.dtype)
                if rows.shape[1] != embeddings.shape[1]:
                    raise self._ragged()
                places = target[start : start + len(rows)]
                embeddings[places[places >= 0]] = rows[places >= 0]
                start += len(rows)
                bar.update(len(rows))
        return np.empty((0, 0), np.float32) if embeddings is None else embeddings

    def _matrix(self, lists: pa.Array) -> Vectors:
        """The lists of a batch as rows, from the flat values and the lengths."""
        if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type) or _is_fixed(lists.type)):
            raise TypeError(f"column 'embedding' holds {lists.type}, not lists")
        if lists.null_count:
            raise TypeError("column 'embedding' has rows without a list")
        lengths = pc.list_value_length(lists)
        bounds = pc.min_max(lengths).as_py()
        if bounds["min"] != bounds["max"]:
            raise self._ragged()
        values = lists.flatten()
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
            raise TypeError(f"column 'embedding' holds lists of {values.type}, not of real numbers")
        flat: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)  # NaN where a number is missing
        with np.errstate(over="ignore"):
            rows: Vectors = flat.astype(np.float16 if flat.dtype == np.float16 else np.float32, copy=False)
        return rows.reshape(len(lists), int(bounds["max"] or 0))

    def _ragged(self) -> DataError:
        return DataError(f"{self.path}: column 'embedding' holds lists of different lengths; make them one dimension")


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))
