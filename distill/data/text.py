"""Text files as they come: perhaps compressed, with a byte order mark, in UTF-16, with any line ends."""

from __future__ import annotations

import codecs
from pathlib import Path

import pyarrow as pa

from distill.errors import DataError

PACKED_SUFFIXES = (".gz", ".zst")
PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes → codec. What is read decides, not the name; neither begins UTF-8 text."""
FOREIGN = {
    b"PK\x03\x04": ("a ZIP archive or a spreadsheet", "unpack it, or export it as CSV"),
    b"\xfd7zXZ\x00": ("xz compressed", "unpack it, or compress it by gzip or zstd"),
    b"BZh91AY&SY": ("bzip2 compressed", "unpack it, or compress it by gzip or zstd"),
    b"PAR1": ("Parquet", "give --format parquet"),
}
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
HEAD_BYTES = 1 << 20


def plain_name(path: Path) -> str:
    """Return the file's name without the suffix of its compression."""
    return path.stem if path.suffix.lower() in PACKED_SUFFIXES else path.name


def find_file(folder: Path, name: str) -> Path:
    """Return the file of that name, or its compressed form where only that is there; it need not be there at all."""
    paths = [folder / f"{name}{suffix}" for suffix in ("", *PACKED_SUFFIXES)]
    return next((path for path in paths if path.is_file()), paths[0])


def read_bytes(path: Path) -> bytes:
    """Read a whole text file: unpacked, as UTF-8 where it has a mark of UTF-16, without byte order mark.

    Raises:
        DataError: It is missing, unreadable, cut short, or of a kind that is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; check the path") from error
    codec = next((codec for magic, codec in PACKINGS.items() if content.startswith(magic)), None)
    if codec:
        content = _unpack(path, content, codec)
    for magic, (kind, remedy) in FOREIGN.items():
        if content.startswith(magic):
            raise DataError(f"{path}: the file is {kind}, not text; {remedy}")
    if content.startswith(UTF16_MARKS):
        content = _decode(path, content, "utf-16").encode()
    elif b"\0" in content[:2]:
        raise DataError(f"{path}: line 1: not UTF-8 text (NUL bytes, as UTF-16 has them); save it as UTF-8")
    return content.removeprefix(codecs.BOM_UTF8)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    r"""Read a whole text file; every line end becomes "\n".

    Raises:
        DataError: It is missing, unreadable or not in `encoding`.
    """
    text = _decode(path, read_bytes(path), encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def count_lines(content: bytes) -> int:
    r"""Count the lines; each of "\n", "\r\n" and "\r" ends one."""
    ends = content.count(b"\n")
    if b"\r" in content:
        ends += content.count(b"\r") - content.count(b"\r\n")
    return ends + (not content.endswith((b"\n", b"\r")))


def require_encoding(path: Path, content: bytes, encoding: str = "utf-8") -> None:
    """Check that the content can be decoded.

    Raises:
        DataError: It cannot; the line is named.
    """
    _decode(path, content, encoding)


def _decode(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        # Of UTF-16 the line would be a guess: a line end is two bytes there.
        where = "" if encoding == "utf-16" else f"line {count_lines(content[: error.start] + b'x')}: "
        raise DataError(f"{path}: {where}not {encoding} text; save the file as UTF-8") from error


def _unpack(path: Path, content: bytes, codec: str) -> bytes:
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), codec) as stream:
            return bytes(stream.read())
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be unpacked as {codec} ({reason}); copy or compress it again") from error
