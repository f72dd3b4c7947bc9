"""Writing files whole or not at all: temporary path, fsync, rename.

A process that is killed leaves its draft behind. A draft is locked by whoever writes it, and the lock ends with its
process; a draft that nobody locks is removed by the next one who writes to its place.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part."""
    with open_whole(path) as stream:
        stream.write(content)


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream whose bytes stand at `path` once the block ends without an error, and never a part of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, handle = _open_draft(path, directory=False)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            draft.chmod(0o644)
            draft.replace(path)
        _flush_one(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here for the folder; the lock ends with its process, however that one ends.

    Args:
        folder: Is made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def publish_directory(target: Path) -> Iterator[Path]:
    """Yield an empty draft directory beside `target`; on success flush it and move it into place.

    An existing `target` is replaced in one step. On any error the draft is removed and `target` stays as it was.

    Args:
        target: Where the finished directory is to stand.

    Yields:
        The draft directory to write into.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, lock = _open_draft(target, directory=True)
    try:
        yield draft
        draft.chmod(0o755)
        _flush(draft)
        _move(draft, target)
        _flush_one(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)


def _open_draft(path: Path, *, directory: bool) -> tuple[Path, int]:
    """Make an empty draft beside a path, locked, and open it; drafts of the same path that nobody locks are removed."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.draft(\.old)?")
    for left in path.parent.iterdir():
        if name.fullmatch(left.name):
            _remove_abandoned(left)
    while True:
        prefix, suffix = f".{path.name}.", ".draft"
        if directory:
            draft = Path(tempfile.mkdtemp(suffix, prefix, path.parent))
            handle = os.open(draft, os.O_RDONLY)
        else:
            handle, text = tempfile.mkstemp(suffix, prefix, path.parent)
            draft = Path(text)
        with suppress(OSError):  # a file system without locks: nobody removes drafts there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if draft.exists():
            return draft, handle
        os.close(handle)  # taken for an abandoned one, before it was locked


def _remove_abandoned(draft: Path) -> None:
    with suppress(OSError):
        handle = os.open(draft, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if draft.is_dir():
                shutil.rmtree(draft)
            else:
                draft.unlink()
        finally:
            os.close(handle)


def _flush(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        _flush_one(path)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(draft: Path, target: Path) -> None:
    """Move a draft into place; what stood there is in the draft afterwards, or gone."""
    if not target.exists():
        draft.rename(target)
    elif not _exchange(draft, target):
        old = draft.with_name(f"{draft.name}.old")
        target.rename(old)
        try:
            draft.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step, and say whether that could be done: renameat2(2), of Linux alone."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
