"""FAISS behind the port: parameters per call, one native thread per serving thread, mapped files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from export.bundle import TruncatedIndex
from serve.errors import UnusableBundle


def limit_native_threads() -> None:
    """Keep FAISS from making a team of threads in the calling thread; call once in each serving thread.

    The setting is per thread in OpenMP; without it every serving thread owns a pool as large as the machine.
    """
    faiss.omp_set_num_threads(1)


class FaissIndex:
    """A FAISS index of inner products whose ids are row numbers. Thread-safe: searches change nothing.

    Args:
        index: Opened, non-empty.
        search: FAISS search parameters for every query: `efSearch` for HNSW, `nprobe` for IVF.

    Raises:
        UnusableBundle: The index does not take one of the parameters.
    """

    def __init__(self, index: faiss.Index, search: Mapping[str, int] | None = None) -> None:
        self._index = index
        self._search = dict(search or {})
        self._make_parameters = _parameters_for(index)
        self.is_exact = isinstance(index, faiss.IndexFlat)
        if self._search:
            try:
                self._parameters()
            except (AssertionError, AttributeError, TypeError, ValueError) as error:
                raise UnusableBundle(
                    f"search parameters {self._search} do not fit {type(index).__name__}: export the bundle again"
                ) from error

    @classmethod
    def open(cls, path: Path, factory: str, search: Mapping[str, int], *, in_memory: bool = False) -> FaissIndex:
        """Open an index file, mapped where FAISS can, so that several processes share its pages.

        Args:
            path: The file.
            factory: FAISS factory string it was made with.
            search: Search parameters for every query.
            in_memory: Read it whole instead of mapping it.

        Raises:
            TruncatedIndex: The file is not a whole FAISS index.
            UnusableBundle: The index does not take the parameters.
        """
        try:
            index = faiss.read_index(str(path), 0 if in_memory else _io_flags(factory))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise TruncatedIndex(f"{path}: FAISS cannot read it ({reason}): export the bundle again") from error
        return cls(index, search)

    @property
    def num_items(self) -> int:
        """Number N of items."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Length d of an embedding."""
        return int(self._index.d)

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The best items of each vector, as the index finds them.

        Args:
            vectors: float32 of shape (B, d), C-contiguous.
            k: How many; between 1 and N.

        Returns:
            Scores (B, k), falling, and rows (B, k), -1 where it found fewer.
        """
        scores, rows = self._index.search(vectors, k, params=self._parameters())
        return scores, rows

    def _parameters(self) -> Any:
        # One object per call: a shared one, or a setting on the index, would be a race between requests.
        return self._make_parameters(**self._search) if self._search else None


def _parameters_for(index: faiss.Index) -> type[Any]:
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW  # type: ignore[attr-defined,no-any-return]  # missing in its stubs
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF
    return faiss.SearchParameters


def _io_flags(factory: str) -> int:
    if factory.startswith("IVF"):
        return int(faiss.IO_FLAG_MMAP)
    if factory.startswith(("Flat", "HNSW")):
        return int(faiss.IO_FLAG_MMAP_IFC)
    return 0
