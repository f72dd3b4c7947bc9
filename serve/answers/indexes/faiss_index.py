"""FAISS behind the port: parameters per call, one native thread per serving thread, mapped files, true scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from export.bundle import K_FACTOR, TruncatedIndex, rescore
from serve.answers.errors import UnusableBundle
from serve.answers.ports import Matrix


def limit_native_threads() -> None:
    """Keep FAISS from making a team of threads in the calling thread; call once in each serving thread.

    The setting is per thread in OpenMP; without it every serving thread owns a pool as large as the machine.
    """
    faiss.omp_set_num_threads(1)


class FaissIndex:
    """A FAISS index of inner products whose ids are row numbers. Thread-safe: searches change nothing.

    Args:
        index: Opened, non-empty.
        search: How to ask it: FAISS's parameters (`efSearch` for HNSW, `nprobe` for IVF), and `k_factor` where its
            scores are approximate: it is asked for so many times more, and what it finds is scored by `items`.
        items: The item embeddings, shape (N, d); needed with `k_factor`.

    Raises:
        UnusableBundle: The index does not take one of the parameters.
    """

    def __init__(
        self, index: faiss.Index, search: Mapping[str, int] | None = None, items: Matrix | None = None
    ) -> None:
        self._index: Any = index
        self._search = dict(search or {})
        self._factor = self._search.pop(K_FACTOR, 0)
        self._items = items
        self.is_exact = isinstance(index, faiss.IndexFlat)
        if self._factor and items is None:
            raise UnusableBundle(f"{K_FACTOR} {self._factor} needs the item embeddings: export the bundle again")
        try:
            # Searches only read it, so that one object serves all threads; a setting on the index would be a race.
            self._parameters = _parameters_for(index)(**self._search) if self._search else None
        except (AssertionError, AttributeError, TypeError, ValueError) as error:
            raise UnusableBundle(
                f"search parameters {self._search} do not fit {type(index).__name__}: export the bundle again"
            ) from error

    @classmethod
    def open(
        cls, path: Path, search: Mapping[str, int], items: Matrix | None = None, *, in_memory: bool = False
    ) -> FaissIndex:
        """Open an index file, mapped where FAISS can, so that several processes share its pages.

        Args:
            path: The file.
            search: How to ask it.
            items: The item embeddings, shape (N, d).
            in_memory: Read it whole instead of mapping it.

        Raises:
            TruncatedIndex: The file is not a whole FAISS index.
            UnusableBundle: The index does not take the parameters.
        """
        try:
            # Not IO_FLAG_MMAP: its inverted lists start threads in every query, which takes a hundred times as long.
            index = faiss.read_index(str(path), 0 if in_memory else int(faiss.IO_FLAG_MMAP_IFC))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise TruncatedIndex(f"{path}: FAISS cannot read it ({reason}): export the bundle again") from error
        return cls(index, search, items)

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
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.shape[1] != self.dim:
            raise ValueError(f"vectors of {vectors.shape[1]} numbers for an index of {self.dim}")
        wanted = min(k * self._factor, self.num_items) if self._factor else k
        scores, rows = np.empty((len(vectors), wanted), np.float32), np.empty((len(vectors), wanted), np.int64)
        pointers = [faiss.swig_ptr(array) for array in (vectors, scores, rows)]
        # What `search` of FAISS's Python layer does, without its checks, which take a fifth of a small search.
        self._index.search_c(len(vectors), pointers[0], wanted, pointers[1], pointers[2], self._parameters)
        return rescore(self._items, vectors, rows, k) if self._factor and self._items is not None else (scores, rows)


def _parameters_for(index: faiss.Index) -> type[Any]:
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW  # type: ignore[attr-defined,no-any-return]  # missing in its stubs
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF
    return faiss.SearchParameters
