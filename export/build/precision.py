"""Embeddings at reduced precision, rounded and decoded as the index that stores them gives them back.

What is stored is what is measured: every precision returns the decoded vectors beside the index that scores with them.

| precision | an item takes | users are kept in |
|---|---|---|
| float32 | 4d bytes | float32 |
| float16 | 2d | float16 |
| int8 | d: each dimension's own range in 255 steps | float32 |
| pq | as many bytes as asked for: product quantisation | float32 |

References:
    Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", PAMI 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from distill.finite import find_flaw
from export.build.ann import Vectors, build_index, code_size, one_thread
from export.bundle.errors import ExportError

FACTORIES = {"float32": "Flat", "float16": "SQfp16", "int8": "SQ8"}
PRECISIONS = tuple(FACTORIES)
PRODUCT = "pq"
"""How names of product-quantised precisions begin; the bytes of a code follow."""
MAXIMUM_BITS = 8


@dataclass(frozen=True)
class StoredVectors:
    """Embeddings as they are stored.

    Attributes:
        users: Decoded, float32, shape (|U|, d).
        items: Decoded, float32, shape (|I|, d).
        user_dtype: "float32" or "float16".
        item_dtype: Element type that holds `items` without loss: "float16", else "float32".
        factory: FAISS factory string of `index`.
        built: `index`, where it was needed to decode the items.
    """

    users: Vectors
    items: Vectors
    user_dtype: str
    item_dtype: str
    factory: str
    built: faiss.Index | None = None

    @cached_property
    def index(self) -> faiss.Index:
        """Exhaustive search over the stored items, row numbers inside; of float32 a copy of them, made when asked."""
        return self.built or build_index(self.factory, self.items)

    @property
    def as_stored(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Users and items in the element types in which a bundle holds them."""
        return self.users.astype(self.user_dtype, copy=False), self.items.astype(self.item_dtype, copy=False)

    @property
    def code_bytes(self) -> int:
        """Bytes of one item's code."""
        return code_size(self.index)

    @property
    def bytes_per_user(self) -> int:
        """Bytes of one user's vector."""
        return int(self.users.shape[1]) * np.dtype(self.user_dtype).itemsize


def store(users: npt.NDArray[Any], items: npt.NDArray[Any], precision: str) -> StoredVectors:
    """Store embeddings at a precision.

    Args:
        users: Shape (|U|, d).
        items: Shape (|I|, d).
        precision: In `PRECISIONS`, or "pq" and the bytes of a code, as in "pq16".

    Raises:
        ExportError: A value does not fit the precision, or there is nothing to quantise.
    """
    if precision.startswith(PRODUCT):
        index, decoded, factory = quantize_items(items, int(precision.removeprefix(PRODUCT)))
        wide = np.ascontiguousarray(users, dtype=np.float32)
        stored = StoredVectors(wide, decoded, "float32", "float32", factory, index)
    elif precision == "float32":
        wide, decoded = (np.ascontiguousarray(side, dtype=np.float32) for side in (users, items))
        stored = StoredVectors(wide, decoded, "float32", "float32", FACTORIES[precision])
    else:
        index = _encode(items, precision)
        dtype = "float16" if precision == "float16" else "float32"
        with np.errstate(over="ignore"):
            rounded = users.astype(dtype).astype(np.float32)
        decoded = index.reconstruct_n(0, len(items))
        stored = StoredVectors(rounded, decoded, dtype, dtype, FACTORIES[precision], index)
    for side, values in (("user", stored.users), ("item", stored.items)):
        require_finite(f"{side} embeddings", values, precision)
    return stored


def require_finite(name: str, values: npt.NDArray[Any], precision: str) -> None:
    """Refuse what no bundle may hold.

    Args:
        name: Of the values.
        values: As they are to be stored, shape (N, d).
        precision: In which.

    Raises:
        ExportError: They cannot be scored with.
    """
    if flaw := find_flaw(values):
        raise ExportError(f"{name} in {precision}: {flaw}; train again or use float32")


def decode_rounded(item_embeddings: npt.NDArray[Any], precision: str) -> Vectors:
    """Item vectors as an index of that precision scores with them, float32 of shape (|I|, d).

    Args:
        item_embeddings: Shape (|I|, d).
        precision: In `PRECISIONS`.
    """
    decoded: Vectors = _encode(item_embeddings, precision).reconstruct_n(0, len(item_embeddings))
    return decoded


def _encode(items: npt.NDArray[Any], precision: str) -> faiss.Index:
    return build_index(FACTORIES[precision], np.ascontiguousarray(items, dtype=np.float32))


def quantize_items(
    item_embeddings: npt.NDArray[Any], code_bytes: int
) -> tuple[faiss.Index, npt.NDArray[np.float32], str]:
    """Product-quantise item vectors to `code_bytes` bytes each, for search by inner product.

    One byte a sub-vector. Where the dimension is no multiple of `code_bytes`, a random rotation first spreads the
    vector over the next multiple, which changes no inner product. With fewer than 256 items the sub-codes have as
    many bits as there are items to tell apart, so the code is shorter than asked for.

    Args:
        item_embeddings: Shape (I, d_t).
        code_bytes: Bytes a code.

    Returns:
        The index, the decoded vectors (float32, shape (I, d_t)), and the FAISS factory string.

    Raises:
        ExportError: No bytes, or no items to tell apart.
    """
    items = np.ascontiguousarray(item_embeddings, dtype=np.float32)
    bits = min(MAXIMUM_BITS, len(items).bit_length() - 1)
    if code_bytes < 1 or bits < 1:
        raise ExportError(f"code of {code_bytes} bytes for {len(items)} items: needs at least one and two")
    dim = items.shape[1]
    padded = -(-dim // code_bytes) * code_bytes
    # "np": no polysemous training, which takes minutes and serves a filter that is not used here.
    factory = f"PQ{code_bytes}x{bits}np"
    if padded != dim:
        factory = f"RR{padded},{factory}"
    index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    inner = index.index if isinstance(index, faiss.IndexPreTransform) else index
    quantizer: Any = faiss.downcast_index(inner)
    # Few items are no mistake here: the codebook is to fit these items and no others.
    quantizer.pq.cp.min_points_per_centroid = 1
    with one_thread():
        index.train(items)
        index.add(items)
    return index, index.reconstruct_n(0, len(items)), factory


def codebook_size(index: faiss.Index) -> int:
    """Bytes of a product-quantised index that do not grow with the items: its centroids."""
    inner = index.index if isinstance(index, faiss.IndexPreTransform) else index
    quantizer: Any = faiss.downcast_index(inner)
    return int(quantizer.pq.centroids.size()) * 4
