"""Writing a bundle whole or not at all.

What a killed export leaves is a draft that nobody locks any more; the next export of the model removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.bundle.arrays import Array, read_header, save_array, sha256_of
from export.bundle.errors import BundleExists, CannotWriteBundle
from export.bundle.idtable import write_id_table, write_string_column
from export.bundle.manifest import (
    ANSWER_ROWS_FILE,
    ANSWER_SCORES_FILE,
    FOLD_IN_TABLE_FILE,
    MANIFEST_FILE,
    RECOMMEND_FILE,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    compute_bundle_id,
)
from export.bundle.reader import open_bundle

OF_USERS = ("user_", "seen_", "heldout_", "answer_", RECOMMEND_FILE)
"""How names of files begin that differ between bundles of the same items: the graph has the number of users in it."""
WEIGHTS_OF_ITEMS = ("item_embeddings.npy", FOLD_IN_TABLE_FILE)
"""What graphs have their weights in: ONNX refuses a file that has several names."""
_DRAFT = re.compile(r"\.[1-9][0-9]*\.([a-z0-9_]{8}\.draft|unlabelled)")


@dataclass(frozen=True)
class BundleContents:
    """Ids and arrays of a bundle to be.

    Attributes:
        user_ids: U distinct outside ids.
        item_ids: I distinct outside ids.
        user_embeddings: float32 or float16, shape (U, d).
        item_embeddings: float32 or float16, shape (I, d).
        seen_indptr: int64, shape (U + 1,).
        seen_indices: Item rows the users already have.
        popularity: Item rows, most popular first, shape (I,).
        item_titles: I titles, or None.
        item_categories: Names per item, or None.
        heldout_indptr: int64, shape (U + 1,), or None; None together with the next.
        heldout_indices: Held-out item rows.
        answer_rows: The best items of each user, shape (U, N), or None; None together with the next.
        answer_scores: Their scores, float32 of shape (U, N).
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    user_embeddings: Array
    item_embeddings: Array
    seen_indptr: npt.NDArray[np.integer]
    seen_indices: npt.NDArray[np.integer]
    popularity: npt.NDArray[np.integer]
    item_titles: Sequence[str] | None = None
    item_categories: Sequence[Sequence[str]] | None = None
    heldout_indptr: npt.NDArray[np.integer] | None = None
    heldout_indices: npt.NDArray[np.integer] | None = None
    answer_rows: npt.NDArray[np.integer] | None = None
    answer_scores: npt.NDArray[np.float32] | None = None
    fold_in_embeddings: Array | None = None


def open_unverified(draft: Path) -> None:
    """Check what every reader checks each time; that needs no second look at every byte."""
    open_bundle(draft, verify=False)


def write_bundle(
    target: Path,
    manifest: Manifest,
    contents: BundleContents,
    write_graphs: Callable[[Path], None],
    check: Callable[[Path], object] = open_unverified,
    items_of: Path | None = None,
) -> Manifest:
    """Write a bundle whole or not at all.

    Args:
        target: Directory to make; a bundle is immutable, so it MUST NOT exist.
        manifest: The cards; `schema_version`, `files`, `bundle_id` and `counts` are filled in here.
        contents: Ids and arrays.
        write_graphs: Called with the draft directory once its arrays are written; writes those of `index.faiss`,
            `recommend.onnx` and `fold_in.onnx` that are not there.
        check: Called with the finished draft; what it raises keeps the draft from becoming a bundle.
        items_of: A bundle of the same items, on the same disk, whose files of them are taken: by hard link, or copied
            where ONNX, or the file system, has no such thing.

    Returns:
        The manifest as written.

    Raises:
        BundleExists: `target` is there already.
        CannotWriteBundle: The disk is full, or may not be written.
        BundleError: What is to be written would not open, or does not pass the check.
    """
    if target.exists():
        raise BundleExists(f"{target}: exists and bundles are immutable; give another version")
    try:
        return _write(target, manifest, contents, write_graphs, check, items_of)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotWriteBundle(
            f"{target}: cannot be written ({reason}) and nothing is left of it; free space there and try again"
        ) from error


def _write(
    target: Path,
    manifest: Manifest,
    contents: BundleContents,
    write_graphs: Callable[[Path], None],
    check: Callable[[Path], object],
    items_of: Path | None,
) -> Manifest:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, lock = open_draft(target)
    try:
        _write_users(draft, contents)
        if items_of is None:
            _write_items(draft, contents)
        else:
            _take_items(items_of, draft)
        write_graphs(draft)
        complete = _complete(draft, manifest, contents)
        (draft / MANIFEST_FILE).write_bytes(complete.to_bytes())
        check(draft)
        draft.chmod(0o755)
        flush([*draft.iterdir(), draft])
        try:
            draft.rename(target)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            raise BundleExists(f"{target}: exists and bundles are immutable; give another version") from error
        flush([target.parent])
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)
        with suppress(OSError):
            target.parent.rmdir()  # where nothing else is in it: a model without a version is none
    return complete


def copy_bundle(bundle: Path, target: Path, manifest: Manifest) -> None:
    """Copy a bundle, whole and verified or not at all.

    Args:
        bundle: Its directory.
        target: Directory to make.
        manifest: Of the copy.

    Raises:
        BundleError: The copy does not verify.
        OSError: It cannot be written, or `target` is there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, lock = open_draft(target)
    try:
        shutil.copytree(bundle, draft, dirs_exist_ok=True)
        (draft / MANIFEST_FILE).write_bytes(manifest.to_bytes())
        open_bundle(draft, verify=True)
        draft.chmod(0o755)
        flush([*draft.iterdir(), draft])
        draft.rename(target)
        flush([target.parent])
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)


def open_draft(target: Path) -> tuple[Path, int]:
    """Make an empty draft beside `target`, locked as long as this process lives; remove those that nobody locks."""
    for left in target.parent.iterdir():
        if _DRAFT.fullmatch(left.name):
            _remove_abandoned(left)
    while True:
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".draft"))
        lock = os.open(draft, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: nobody removes drafts there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if draft.exists():
            return draft, lock
        os.close(lock)  # taken for an abandoned one, before it was locked


def _remove_abandoned(draft: Path) -> None:
    with suppress(OSError):
        handle = os.open(draft, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(draft)
        finally:
            os.close(handle)


def _complete(draft: Path, manifest: Manifest, contents: BundleContents) -> Manifest:
    files: dict[str, FileEntry] = {}
    for path in sorted(draft.iterdir()):
        dtype, shape = None, None
        if path.suffix == ".npy":
            found, shape, _ = read_header(path)
            dtype = found.name
        files[path.name] = FileEntry(path.stat().st_size, sha256_of(path), dtype, shape)
    counts = {
        "users": len(contents.user_ids),
        "items": len(contents.item_ids),
        "seen": len(contents.seen_indices),
    }
    return replace(
        manifest,
        schema_version=SCHEMA_VERSION if FOLD_IN_TABLE_FILE in files else 1,
        bundle_id=compute_bundle_id(files),
        counts=counts,
        files=files,
    )


def flush(paths: list[Path]) -> None:
    """Wait until files and directories are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_users(directory: Path, contents: BundleContents) -> None:
    """Write what a bundle has of its users.

    Raises:
        DuplicateIds: An id stands twice.
        MalformedArray: An id cannot be written as UTF-8.
    """
    write_id_table(directory / "user_ids", contents.user_ids)
    save_array(directory / "user_embeddings.npy", contents.user_embeddings)
    _save_csr(directory, "seen", contents.seen_indptr, contents.seen_indices)
    if contents.heldout_indptr is not None and contents.heldout_indices is not None:
        _save_csr(directory, "heldout", contents.heldout_indptr, contents.heldout_indices)
    if contents.answer_rows is not None and contents.answer_scores is not None:
        save_array(directory / ANSWER_ROWS_FILE, contents.answer_rows.astype(np.int32))
        save_array(directory / ANSWER_SCORES_FILE, contents.answer_scores)


def _write_items(directory: Path, contents: BundleContents) -> None:
    """Write what a bundle has of its items, but index and graphs; raises as `_write_users`."""
    write_id_table(directory / "item_ids", contents.item_ids)
    save_array(directory / "item_embeddings.npy", contents.item_embeddings)
    save_array(directory / "popularity.npy", contents.popularity.astype(np.int32))
    if contents.item_titles is not None:
        write_string_column(directory / "item_titles", contents.item_titles)
    if contents.item_categories is not None:
        _save_categories(directory, contents.item_categories)
    if contents.fold_in_embeddings is not None:
        save_array(directory / FOLD_IN_TABLE_FILE, contents.fold_in_embeddings)


def _take_items(other: Path, directory: Path) -> None:
    """Give `directory` the files of `other` that say nothing of users."""
    for path in other.iterdir():
        if path.name.startswith(OF_USERS) or path.name == MANIFEST_FILE:
            continue
        try:
            if path.name in WEIGHTS_OF_ITEMS:
                _clone(path, directory / path.name)
            else:
                (directory / path.name).hardlink_to(path)
        except OSError:
            shutil.copyfile(path, directory / path.name)


def _clone(source: Path, target: Path) -> None:
    """Copy within the kernel, which shares the blocks where the file system can (XFS, Btrfs)."""
    left = source.stat().st_size
    with source.open("rb") as reader, target.open("wb") as writer:
        while left and (done := os.copy_file_range(reader.fileno(), writer.fileno(), left)):
            left -= done
    if left:
        raise OSError(errno.EIO, "copied in part", str(target))


def _save_csr(directory: Path, name: str, indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.integer]) -> None:
    save_array(directory / f"{name}_indptr.npy", indptr.astype(np.int64))
    save_array(directory / f"{name}_indices.npy", indices.astype(np.int32))


def _save_categories(directory: Path, categories: Sequence[Sequence[str]]) -> None:
    names = sorted({name for row in categories for name in row})
    row_of = {name: row for row, name in enumerate(names)}
    lengths = np.asarray([len(row) for row in categories], dtype=np.int64)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    indices = np.asarray([row_of[name] for row in categories for name in row], dtype=np.int32)
    _save_csr(directory, "item_categories", indptr, indices)
    write_string_column(directory / "item_categories_names", names)
