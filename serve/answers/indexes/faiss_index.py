"""FAISS behind the port: parameters per call, one native thread per serving thread, mapped files, true scores."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from export.bundle import K_FACTOR, TruncatedIndex, rescore
from export.bundle.manifest import SEARCH_PARAMETERS
from serve.answers.errors import UnusableBundle
from serve.answers.ports import Matrix

_NEVER_MAPPED = (b"IxPq", b"IxPT")
"""Product quantisers, alone and rotated: FAISS reads past the end of a mapped file of theirs that was cut."""
_FAST_SCANS = (faiss.IndexPQFastScan, faiss.IndexIVFPQFastScan)
_READING = threading.Lock()
"""FAISS's bounds on what a file may make it allocate are of the whole process."""


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
            TruncatedIndex: The file is not a whole FAISS index, or its parts do not fit each other.
            UnusableBundle: The index does not take the parameters.
        """
        index = _read(path, in_memory=in_memory)
        _check_parts(path, index)
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


def _read(path: Path, *, in_memory: bool) -> faiss.Index:
    size = path.stat().st_size
    with path.open("rb") as stream:
        in_memory = in_memory or stream.read(4) in _NEVER_MAPPED
    try:
        with _READING, _bounded_by(size):
            # Not IO_FLAG_MMAP: its inverted lists start threads in every query, which takes a hundred times as long.
            return faiss.read_index(str(path), 0 if in_memory else int(faiss.IO_FLAG_MMAP_IFC))
    except (MemoryError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or ["out of memory"])[-1][:200]
        raise TruncatedIndex(f"{path}: FAISS cannot read it ({reason}): export the bundle again") from error


@contextmanager
def _bounded_by(size: int) -> Iterator[None]:
    """Let FAISS take no more memory, or turns, than a file has bytes: what its header claims must lie in it."""
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(size + 1)
    faiss.set_deserialization_loop_limit(size)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before[0])
        faiss.set_deserialization_loop_limit(before[1])


def _check_parts(path: Path, index: Any) -> None:
    """Check what FAISS takes from a file on trust: sizes of parts, ids of lists, how much a query looks at by default.

    Raises:
        TruncatedIndex: They do not fit the whole.
    """
    part, wanted, dim = index, index.ntotal, index.d
    if isinstance(index, faiss.IndexPreTransform):
        part, dim = faiss.downcast_index(index.index), _transformed_dim(path, index)
    elif isinstance(index, faiss.IndexHNSW):
        part = faiss.downcast_index(index.storage)
        index.hnsw.efSearch = min(index.hnsw.efSearch, SEARCH_PARAMETERS["efSearch"])
    elif isinstance(index, faiss.IndexIVF):
        part, wanted = faiss.downcast_index(index.quantizer), index.nlist
        index.nprobe = min(index.nprobe, index.nlist)
        if not _lists_hold_each_row(index):
            raise TruncatedIndex(f"{path}: its lists do not hold every row once: export the bundle again")
    fits = isinstance(part, faiss.IndexFlatCodes | faiss.IndexPQFastScan) and (part.ntotal, part.d) == (wanted, dim)
    if not fits or (isinstance(index, _FAST_SCANS) and not _blocks_fit(index)):
        raise TruncatedIndex(
            f"{path}: its {type(part).__name__} is not of {wanted} vectors of {dim}: export the bundle again"
        )


def _transformed_dim(path: Path, index: Any) -> int:
    """What a chain of transforms makes of the index's own dimension; a rotation may make it longer.

    Raises:
        TruncatedIndex: A link takes another dimension than the one before it gives.
    """
    dim: int = index.d
    for place in range(index.chain.size()):
        link = index.chain.at(place)
        if link.d_in != dim:
            raise TruncatedIndex(f"{path}: a transform takes {link.d_in} numbers, not {dim}: export the bundle again")
        dim = link.d_out
    return dim


def _lists_hold_each_row(index: Any) -> bool:
    lists = index.invlists
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    if sum(sizes) != index.ntotal:
        return False
    missing = np.ones(index.ntotal, dtype=bool)
    for number, size in enumerate(sizes):
        if size:
            rows = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if rows.min() < 0 or rows.max() >= index.ntotal:
                return False
            missing[rows] = False
    return not missing.any()


def _blocks_fit(index: Any) -> bool:
    """Whether blocks of 4-bit codes are as many and as long as the vectors need; kernels are FAISS's own choice."""
    index.implem, index.qbs = 0, 0
    block, pairs = index.bbs, (index.M + 1) // 2
    if not 0 < block <= 1024 or block % 32 or 2 * pairs != index.M2 or index.ksub != 16:
        return False
    if isinstance(index, faiss.IndexIVF):
        lists: Any = faiss.downcast_InvertedLists(index.invlists)  # type: ignore[arg-type]  # its stubs allow None
        return bool(lists.n_per_block == block and lists.block_size == block * pairs)
    return bool(index.ntotal2 == -(-index.ntotal // block) * block and index.codes.size() == index.ntotal2 * pairs)


def _parameters_for(index: faiss.Index) -> type[Any]:
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW  # type: ignore[attr-defined,no-any-return]  # missing in its stubs
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF
    return faiss.SearchParameters
