"""The first bytes of `index.faiss`, read without FAISS: what is no index of the items never reaches it.

A FAISS file begins with four letters that name the kind, then, little-endian: int32 d, int64 ntotal, two int64 that
mean nothing, one byte is_trained, int32 metric_type.
"""

from __future__ import annotations

import struct
from pathlib import Path

from export.bundle.errors import TruncatedIndex

INDEX_KINDS = {
    b"IxFI": "Flat",
    b"IxSQ": "SQ8, SQfp16",
    b"IxPq": "PQMxb",
    b"IxPT": "RRd,PQMxb",
    b"IPfs": "PQMx4fs",
    b"IHNf": "HNSWm",
    b"IHNs": "HNSWm_SQ8",
    b"IwFl": "IVFn,Flat",
    b"IwSq": "IVFn,SQ8",
    b"IwPf": "IVFn,PQMx4fs",
}
"""The kinds that a bundle may hold: letters → how FAISS's factory calls it. Their ids are row numbers."""

INNER_PRODUCT = 0
_HEADER = struct.Struct("<4siqqqBi")


def pack_index_header(kind: bytes, items: int, dim: int) -> bytes:
    """The bytes with which an index of `items` vectors of length `dim` begins."""
    return _HEADER.pack(kind, dim, items, 1 << 20, 1 << 20, 1, INNER_PRODUCT)


def check_index_header(path: Path, items: int, dim: int) -> None:
    """Check that an index file is of a known kind and holds `items` vectors of length `dim` by inner product.

    Raises:
        TruncatedIndex: It is cut, of another kind, or of other vectors.
    """
    with path.open("rb") as stream:
        start = stream.read(_HEADER.size)
    if len(start) < _HEADER.size:
        raise TruncatedIndex(f"{path}: {len(start)} bytes are no index; export the bundle again")
    kind, dim_found, items_found, _, _, is_trained, metric = _HEADER.unpack(start)
    if kind not in INDEX_KINDS:
        raise TruncatedIndex(f"{path}: begins with {kind!r}, no kind of index of the format; export the bundle again")
    if (items_found, dim_found) != (items, dim):
        raise TruncatedIndex(
            f"{path}: {items_found} items of dimension {dim_found}, manifest says {items} of {dim};"
            " export the bundle again"
        )
    if metric != INNER_PRODUCT or is_trained != 1:
        raise TruncatedIndex(f"{path}: not a trained index by inner product; export the bundle again")
