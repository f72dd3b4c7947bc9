"""The file of a run's embeddings: safetensors that are written a block of rows at a time and mapped when read.

The library's own writer and reader hold a copy of everything, which of a million users and items is gigabytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from distill.finite import blocks_of_rows
from distill.storage import write_file

Vectors = npt.NDArray[np.floating[Any]]
"""float32, or float16 where embeddings came so from elsewhere: shape (N, d)."""

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
ALIGNMENT = 8


def write_embeddings(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write matrices, byte for byte as `safetensors` would.

    Args:
        path: Is replaced whole or not at all.
        tensors: Name → shape (N, d); float16 stays so, all else becomes float32.
    """
    kinds = {name: "F16" if matrix.dtype == np.float16 else "F32" for name, matrix in tensors.items()}
    names = sorted(tensors, key=lambda name: (-DTYPES[kinds[name]].itemsize, name))

    def content() -> Iterator[bytes]:
        yield embeddings_header({name: (kinds[name], tensors[name].shape) for name in names})
        for name in names:
            for _, block in blocks_of_rows(tensors[name]):
                yield np.ascontiguousarray(block, dtype=DTYPES[kinds[name]]).tobytes()

    write_file(path, content())


def embeddings_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """The head of a file of tensors that follow in their order.

    Args:
        tensors: Name → a key of `DTYPES`, and the shape.
    """
    header, end = {}, 0
    for name, (kind, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * DTYPES[kind].itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def map_embeddings(path: Path) -> dict[str, Vectors]:
    """Map the matrices of a file; what is written into them stays in memory.

    Raises:
        OSError: Unreadable.
        SafetensorError: No safetensors file.
        ValueError: A tensor is no matrix of float32 or float16.
    """
    with safe_open(path, framework="np"):
        pass  # checks the header against the length of the file
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {name: _map(path, name, about, 8 + length) for name, about in header.items()}


def _map(path: Path, name: str, about: Mapping[str, Any], start: int) -> Vectors:
    shape, kind = tuple(about["shape"]), about["dtype"]
    if len(shape) != 2 or kind not in DTYPES:
        raise ValueError(f"{name} is {kind} of shape {shape}, not a matrix of float32 or float16")
    if 0 in shape:
        return np.empty(shape, DTYPES[kind])
    # Copy on write: torch warns of arrays that are read-only.
    mapped = np.memmap(path, DTYPES[kind], mode="c", offset=start + about["data_offsets"][0], shape=shape)
    matrix: Vectors = mapped.view(np.ndarray)
    return matrix
