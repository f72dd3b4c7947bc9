"""Opening a bundle: everything that can be wrong with it is found here, before anybody answers from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.bundle.arrays import Array, sha256_of
from export.bundle.errors import (
    ChecksumMismatch,
    MalformedManifest,
    MissingFile,
    NotABundle,
    RowOutOfRange,
    SizeMismatch,
)
from export.bundle.idtable import IdTable, StringColumn
from export.bundle.layout import (
    ANSWER_ROWS_FILE,
    ANSWER_SCORES_FILE,
    FOLD_IN_FILE,
    INDEX_FILE,
    RECOMMEND_FILE,
    check_values,
    map_arrays,
    verify_values,
)
from export.bundle.manifest import MANIFEST_FILE, MAXIMUM_MANIFEST_BYTES, FileEntry, Manifest, parse_manifest


@dataclass(frozen=True)
class Bundle:
    """An open bundle; arrays are read-only, memory maps or in memory.

    Attributes:
        path: The bundle's directory.
        manifest: What it says about itself.
        user_ids: Outside id of each user row, and back.
        item_ids: Outside id of each item row, and back.
        user_embeddings: float32 or float16, shape (U, d).
        item_embeddings: float32 or float16, shape (I, d).
        seen_indptr: int64, shape (U + 1,).
        seen_indices: int32, shape (counts["seen"],), item rows.
        popularity: int32, shape (I,), item rows, most popular first.
        item_titles: Title of each item row, or None.
        category_names: The category names, or None; None together with the next two.
        category_indptr: int64, shape (I + 1,).
        category_indices: int32, rows of `category_names`.
        heldout_indptr: int64, shape (U + 1,), or None; None together with the next.
        heldout_indices: int32, item rows.
        answer_rows: int32, shape (U, N): the best items each user does not have, -1 where none is left; or None,
            together with the next.
        answer_scores: float32, shape (U, N).
        in_memory: Whether the arrays were read, so that the files are not needed any more.
    """

    path: Path
    manifest: Manifest
    user_ids: IdTable
    item_ids: IdTable
    user_embeddings: Array
    item_embeddings: Array
    seen_indptr: npt.NDArray[np.int64]
    seen_indices: npt.NDArray[np.int32]
    popularity: npt.NDArray[np.int32]
    item_titles: StringColumn | None = None
    category_names: StringColumn | None = None
    category_indptr: npt.NDArray[np.int64] | None = None
    category_indices: npt.NDArray[np.int32] | None = None
    heldout_indptr: npt.NDArray[np.int64] | None = None
    heldout_indices: npt.NDArray[np.int32] | None = None
    answer_rows: npt.NDArray[np.int32] | None = None
    answer_scores: npt.NDArray[np.float32] | None = None
    in_memory: bool = False

    def seen(self, user_index: int) -> npt.NDArray[np.int32]:
        """Item rows the user already has, int32 of shape (n,).

        Raises:
            RowOutOfRange: No such user row.
        """
        if not 0 <= user_index < len(self.user_ids):
            raise RowOutOfRange(f"{self.path}: no user row {user_index}; there are {len(self.user_ids)} users")
        return self.seen_indices[self.seen_indptr[user_index] : self.seen_indptr[user_index + 1]]

    @property
    def index_path(self) -> Path:
        """The FAISS index."""
        return self.path / INDEX_FILE

    @property
    def recommend_onnx_path(self) -> Path:
        """The graph user rows, k → scores, item rows."""
        return self.path / RECOMMEND_FILE

    @property
    def fold_in_onnx_path(self) -> Path:
        """The graph item rows of a history → user vector."""
        return self.path / FOLD_IN_FILE


def open_manifest(path: Path) -> Manifest:
    """Read and check a bundle's manifest, and nothing else of it.

    Args:
        path: The bundle's directory.

    Raises:
        NotABundle: No manifest there.
        MalformedManifest: The manifest is unreadable.
        UnsupportedSchema: The manifest is for another schema version.
        ChecksumMismatch: `bundle_id` does not fit `files`.
    """
    manifest_path = path / MANIFEST_FILE
    if not manifest_path.is_file():
        raise NotABundle(f"{path}: no {MANIFEST_FILE} there; make a bundle with 'lowpass export'")
    if manifest_path.stat().st_size > MAXIMUM_MANIFEST_BYTES:
        raise MalformedManifest(f"{manifest_path}: longer than {MAXIMUM_MANIFEST_BYTES} bytes; export the bundle again")
    return parse_manifest(manifest_path.read_bytes(), str(manifest_path))


def open_bundle(path: Path, *, verify: bool = True, copy_up_to: int = 0) -> Bundle:
    """Open a bundle, checking it as the text in `export/bundle.py` demands.

    Args:
        path: The bundle's directory.
        verify: Also read every byte: checksums, unique ids, finite embeddings.
        copy_up_to: A bundle of at most so many bytes is read into memory; a larger one is mapped.

    Raises:
        BundleError: Its leaf says what is wrong.
    """
    manifest = open_manifest(path)
    for name, entry in manifest.files.items():
        _check_file(path / name, entry, verify=verify)
    in_memory = sum(entry.bytes for entry in manifest.files.values()) <= copy_up_to
    arrays = map_arrays(path, manifest, in_memory=in_memory)
    check_values(path, manifest, arrays)
    bundle = Bundle(
        path=path,
        manifest=manifest,
        user_ids=IdTable.from_arrays(path / "user_ids", arrays),
        item_ids=IdTable.from_arrays(path / "item_ids", arrays),
        user_embeddings=arrays["user_embeddings.npy"],
        item_embeddings=arrays["item_embeddings.npy"],
        seen_indptr=arrays["seen_indptr.npy"],
        seen_indices=arrays["seen_indices.npy"],
        popularity=arrays["popularity.npy"],
        item_titles=_optional_column(path / "item_titles", arrays),
        category_names=_optional_column(path / "item_categories_names", arrays),
        category_indptr=arrays.get("item_categories_indptr.npy"),
        category_indices=arrays.get("item_categories_indices.npy"),
        heldout_indptr=arrays.get("heldout_indptr.npy"),
        heldout_indices=arrays.get("heldout_indices.npy"),
        answer_rows=arrays.get(ANSWER_ROWS_FILE),
        answer_scores=arrays.get(ANSWER_SCORES_FILE),
        in_memory=in_memory,
    )
    if verify:
        verify_values(path, arrays)
        for column in (bundle.user_ids, bundle.item_ids, bundle.item_titles, bundle.category_names):
            if column is not None:
                column.verify()
    return bundle


def _optional_column(path: Path, arrays: dict[str, Array]) -> StringColumn | None:
    return StringColumn.from_arrays(path, arrays) if f"{path.name}.offsets.npy" in arrays else None


def _check_file(path: Path, entry: FileEntry, *, verify: bool) -> None:
    if path.is_symlink() or not path.is_file():
        raise MissingFile(f"{path}: listed in {MANIFEST_FILE} and not a file; copy or export the bundle again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise SizeMismatch(f"{path}: {size} bytes, manifest says {entry.bytes}; copy or export the bundle again")
    if verify and sha256_of(path) != entry.sha256:
        raise ChecksumMismatch(f"{path}: SHA-256 is not the manifest's; copy or export the bundle again")
