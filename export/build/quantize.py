"""Making a teacher's items small without training: product quantisation.

Pure functions on arrays; `export/rivals.py` makes bundles of them.

References:
    Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", PAMI 2011.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from export.build.ann import one_thread
from export.bundle.errors import ExportError

MAXIMUM_BITS = 8


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


def decode_rounded(item_embeddings: npt.NDArray[Any], precision: str) -> npt.NDArray[np.float32]:
    """Item vectors as a scalar quantiser gives them back: what an index of that precision scores with.

    Args:
        item_embeddings: Shape (I, d).
        precision: "float16", or "int8": a byte a number, each dimension scaled to its own range.

    Returns:
        float32, shape (I, d).
    """
    kind = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}[precision]
    items = np.ascontiguousarray(item_embeddings, dtype=np.float32)
    index = faiss.IndexScalarQuantizer(items.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    with one_thread():
        index.train(items)
        index.add(items)
    decoded: npt.NDArray[np.float32] = index.reconstruct_n(0, len(items))
    return decoded
