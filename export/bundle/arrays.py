"""Array files of a bundle: `.npy` version 1.0, little-endian, C order, mapped read-only, never pickled.

NumPy's own loader trusts the header; a bundle may come from elsewhere, so the header is read and compared
with the manifest, and the file's length with the header, before anything is mapped.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.bundle.errors import DtypeMismatch, MalformedArray, RowOutOfRange, ShapeMismatch, SizeMismatch

Array = npt.NDArray[Any]

DTYPES = ("float32", "float16", "int64", "int32", "uint8")
"""Element types an array file may have."""

_MAGIC = b"\x93NUMPY\x01\x00"
_MAXIMUM_HEADER_BYTES = 1024
"""Eight lengths of any size need less; Python's parser is given no more of a text that may be hostile."""
_DESCRIPTIONS = {np.dtype(name).newbyteorder("<").str: np.dtype(name) for name in DTYPES}


def save_array(path: Path, values: Array) -> None:
    """Write `values`, of any shape and one of `DTYPES`, little-endian and in C order."""
    ordered = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, ordered, version=(1, 0), allow_pickle=False)


def read_header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Read an array file's header and check the file's length against it.

    Returns:
        Element type, shape, and the offset in bytes at which the values start.

    Raises:
        MalformedArray: Not a version 1.0 `.npy` file in C order with one of `DTYPES`.
        SizeMismatch: The file is longer or shorter than its header says.
    """
    with path.open("rb") as stream:
        start = stream.read(len(_MAGIC) + 2)
        length = int.from_bytes(start[len(_MAGIC) :], "little")
        if not start.startswith(_MAGIC) or length > _MAXIMUM_HEADER_BYTES:
            raise MalformedArray(f"{path}: not a version 1.0 .npy file; export the bundle again")
        text = stream.read(length)
    dtype, shape = _parse_header(path, text)
    offset = len(start) + length
    needed = offset + dtype.itemsize * _product(shape)
    if path.stat().st_size != needed:
        raise SizeMismatch(
            f"{path}: {path.stat().st_size} bytes where the header needs {needed}; export the bundle again"
        )
    return dtype, shape, offset


def _parse_header(path: Path, text: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    # NumPy's own parser reads more than the format allows, and fails in more ways than it says.
    try:
        fields = ast.literal_eval(text.decode("latin-1"))
        if fields.keys() != {"descr", "fortran_order", "shape"}:
            raise ValueError("other fields than descr, fortran_order and shape")
        dtype, shape = _DESCRIPTIONS.get(fields["descr"]), fields["shape"]
    except (AttributeError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise MalformedArray(f"{path}: unreadable .npy header ({error}); export the bundle again") from error
    if dtype is None or fields["fortran_order"] is not False:
        raise MalformedArray(f"{path}: must be little-endian {'/'.join(DTYPES)} in C order; export the bundle again")
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise MalformedArray(f"{path}: the header's shape must be counts; export the bundle again")
    return dtype, shape


def _product(shape: tuple[int, ...]) -> int:
    # Python integers: a hostile header must not wrap around in int64.
    total = 1
    for length in shape:
        total *= length
    return total


def map_array(path: Path, dtype: str, shape: tuple[int, ...], *, in_memory: bool = False) -> Array:
    """Memory-map an array file read-only after checking its header.

    Args:
        path: The `.npy` file.
        dtype: Element type the manifest declares.
        shape: Shape the manifest declares.
        in_memory: Read it instead of mapping it: then nothing that happens to the file later can harm.

    Returns:
        Read-only array of that shape.

    Raises:
        MalformedArray: Not an array file.
        SizeMismatch: Cut or padded.
        DtypeMismatch: Another element type than `dtype`.
        ShapeMismatch: Another shape than `shape`.
    """
    found_dtype, found_shape, offset = read_header(path)
    if found_dtype.name != dtype:
        raise DtypeMismatch(f"{path}: dtype {found_dtype.name}, manifest says {dtype}; export the bundle again")
    if found_shape != shape:
        raise ShapeMismatch(f"{path}: shape {found_shape}, manifest says {shape}; export the bundle again")
    if not in_memory:
        return np.memmap(path, dtype=found_dtype, mode="r", offset=offset, shape=found_shape)
    values = np.fromfile(path, dtype=found_dtype, offset=offset)
    if values.size != _product(found_shape):
        raise SizeMismatch(f"{path}: was cut while it was read; export the bundle again")
    values.flags.writeable = False
    return values.reshape(found_shape)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_offsets(path: Path, offsets: Array, end: int) -> None:
    """Check that `offsets` (int64, shape (n + 1,)) starts at 0, never falls, and ends at `end`.

    Raises:
        MalformedArray: It does not.
    """
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != end or bool(np.any(offsets[1:] < offsets[:-1])):
        raise MalformedArray(f"{path}: must rise from 0 to {end}; export the bundle again")


def check_rows(path: Path, rows: Array, count: int, lowest: int = 0) -> None:
    """Check that every value of `rows` (integers, any shape) is in [lowest, count).

    Raises:
        RowOutOfRange: One is not.
    """
    if rows.size and (int(rows.min()) < lowest or int(rows.max()) >= count):
        raise RowOutOfRange(
            f"{path}: row numbers {int(rows.min())}..{int(rows.max())} where there are {count} rows;"
            " export the bundle again"
        )
