"""Opening a bundle: everything that can be wrong with it is found here, before anybody answers from it.

The rules are those of FORMAT.md, as a table and as checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.bundle.arrays import DTYPES, Array, check_offsets, check_rows, map_array, sha256_of
from export.bundle.bundle import Bundle
from export.bundle.errors import (
    ChecksumMismatch,
    DtypeMismatch,
    ForeignUser,
    MalformedArray,
    MalformedManifest,
    MissingFile,
    NotABundle,
    ShapeMismatch,
    SizeMismatch,
)
from export.bundle.idtable import IdTable, StringColumn
from export.bundle.index_file import check_index_header
from export.bundle.manifest import (
    ANSWER_ROWS_FILE,
    ANSWER_SCORES_FILE,
    FOLD_IN_TABLE_FILE,
    GRAPH_FILES,
    INDEX_FILE,
    MANIFEST_FILE,
    MAXIMUM_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    parse_manifest,
)

MAXIMUM_GRAPH_BYTES = 64 * 1024 * 1024
"""Longest ONNX file, and longest index beside what grows with items and dimension."""
CHUNK_ROWS = 65536
"""Rows that are looked at together, so that checking a large array takes little memory."""


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
    if manifest_path.is_symlink() or not manifest_path.is_file():
        raise NotABundle(f"{path}: no {MANIFEST_FILE} there; make a bundle with 'lowpass export'")
    if manifest_path.stat().st_size > MAXIMUM_MANIFEST_BYTES:
        raise MalformedManifest(f"{manifest_path}: longer than {MAXIMUM_MANIFEST_BYTES} bytes; export the bundle again")
    return parse_manifest(manifest_path.read_bytes(), str(manifest_path))


def open_bundle(path: Path | str, *, verify: bool = True, copy_up_to: int = 0) -> Bundle:
    """Open a bundle, checking it as FORMAT.md demands.

    Args:
        path: The bundle's directory.
        verify: Also read every byte: checksums, unique ids, finite embeddings.
        copy_up_to: A bundle of at most so many bytes is read into memory; a larger one is mapped.

    Raises:
        BundleError: Its leaf says what is wrong.
    """
    path = Path(path)
    try:
        return _open(path, verify=verify, copy_up_to=copy_up_to)
    except OSError as error:
        what = error.filename or path
        raise MissingFile(f"{what}: cannot be read ({error.strerror}); copy or export the bundle again") from error


def _open(path: Path, *, verify: bool, copy_up_to: int) -> Bundle:
    manifest = open_manifest(path)
    # All that is cheap comes first: nothing is read whole before everything has the length that it must have.
    for name, entry in manifest.files.items():
        _check_file(path / name, entry)
    in_memory = sum(entry.bytes for entry in manifest.files.values()) <= copy_up_to
    arrays = _map_arrays(path, manifest, in_memory=in_memory)
    _check_graphs(path, manifest)
    if verify:
        for name, entry in manifest.files.items():
            _verify_checksum(path / name, entry)
    _check_values(path, manifest, arrays)
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
        fold_in_embeddings=arrays.get(FOLD_IN_TABLE_FILE),
        in_memory=in_memory,
    )
    if verify:
        _verify_values(path, arrays)
        for column in (bundle.user_ids, bundle.item_ids, bundle.item_titles, bundle.category_names):
            if column is not None:
                column.verify()
        _verify_shard(bundle)
    return bundle


def _optional_column(path: Path, arrays: dict[str, Array]) -> StringColumn | None:
    return StringColumn.from_arrays(path, arrays) if f"{path.name}.offsets.npy" in arrays else None


def _check_file(path: Path, entry: FileEntry) -> None:
    if path.is_symlink() or not path.is_file():
        raise MissingFile(f"{path}: listed in {MANIFEST_FILE} and not a file; copy or export the bundle again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise SizeMismatch(f"{path}: {size} bytes, manifest says {entry.bytes}; copy or export the bundle again")


def _check_graphs(path: Path, manifest: Manifest) -> None:
    """Check what is no array: lengths, which the arrays' shapes do not bound, and the index's first bytes.

    Raises:
        SizeMismatch: A file is longer than any of its kind.
        TruncatedIndex: Not an index of the items.
    """
    items, dim = manifest.counts["items"], manifest.model.dim
    for name in GRAPH_FILES:
        # A vector or code with its list entry or links for an item; codebooks, centroids and a rotation for all.
        most = MAXIMUM_GRAPH_BYTES + (items * (8 * dim + 2048) + 4 * dim * dim if name == INDEX_FILE else 0)
        if manifest.files[name].bytes > most:
            raise SizeMismatch(f"{path / name}: longer than {most} bytes; export the bundle again")
    check_index_header(path / INDEX_FILE, items, dim)


def _verify_checksum(path: Path, entry: FileEntry) -> None:
    if sha256_of(path) != entry.sha256:
        raise ChecksumMismatch(f"{path}: SHA-256 is not the manifest's; copy or export the bundle again")


@dataclass(frozen=True)
class _Rule:
    """What an array file must be; a None length is free, a None group is required."""

    dtypes: tuple[str, ...]
    shape: tuple[int | None, ...]
    group: str | None = None


def _rules(manifest: Manifest) -> dict[str, _Rule]:
    users, items = manifest.counts["users"], manifest.counts["items"]
    embeddings = ("float32", "float16")
    answers = max(manifest.answer_table, 1)
    rules = {
        "user_embeddings.npy": _Rule(embeddings, (users, manifest.model.dim)),
        "item_embeddings.npy": _Rule(embeddings, (items, manifest.model.dim)),
        "seen_indptr.npy": _Rule(("int64",), (users + 1,)),
        "seen_indices.npy": _Rule(("int32",), (manifest.counts["seen"],)),
        "popularity.npy": _Rule(("int32",), (items,)),
        "item_categories_indptr.npy": _Rule(("int64",), (items + 1,), "item_categories"),
        "item_categories_indices.npy": _Rule(("int32",), (None,), "item_categories"),
        "item_categories_names.offsets.npy": _Rule(("int64",), (None,), "item_categories"),
        "item_categories_names.bytes.npy": _Rule(("uint8",), (None,), "item_categories"),
        "item_titles.offsets.npy": _Rule(("int64",), (items + 1,), "item_titles"),
        "item_titles.bytes.npy": _Rule(("uint8",), (None,), "item_titles"),
        "heldout_indptr.npy": _Rule(("int64",), (users + 1,), "heldout"),
        "heldout_indices.npy": _Rule(("int32",), (None,), "heldout"),
        ANSWER_ROWS_FILE: _Rule(("int32",), (users, answers), "answers"),
        ANSWER_SCORES_FILE: _Rule(("float32",), (users, answers), "answers"),
    }
    if manifest.schema_version > 1:
        rules[FOLD_IN_TABLE_FILE] = _Rule(embeddings, (items, manifest.model.dim))
    for name, count in (("user_ids", users), ("item_ids", items)):
        rules[f"{name}.offsets.npy"] = _Rule(("int64",), (count + 1,))
        rules[f"{name}.bytes.npy"] = _Rule(("uint8",), (None,))
        rules[f"{name}.slots.npy"] = _Rule(("int32",), (None,))
    return rules


def _map_arrays(path: Path, manifest: Manifest, *, in_memory: bool = False) -> dict[str, Array]:
    """Map every array of the schema that the manifest lists.

    Args:
        path: The bundle's directory.
        manifest: Its manifest.
        in_memory: Read them instead of mapping them.

    Returns:
        Read-only arrays by file name.

    Raises:
        MissingFile: A required file, or a part of an optional group, is not listed.
        DtypeMismatch: Manifest or file differs from the schema or from each other; so for shapes.
        ShapeMismatch: See above.
        MalformedManifest: An array is listed without dtype or shape.
    """
    rules = _rules(manifest)
    present = {rule.group for name, rule in rules.items() if name in manifest.files}
    required = [name for name, rule in rules.items() if rule.group is None or rule.group in present]
    for name in [*required, *GRAPH_FILES]:
        if name not in manifest.files:
            raise MissingFile(f"{path / MANIFEST_FILE}: files does not list {name}; export the bundle again")
    arrays = {}
    for name in required:
        dtype, shape = _declared(path, name, manifest.files[name], rules[name])
        arrays[name] = map_array(path / name, dtype, shape, in_memory=in_memory)
    return arrays


def _declared(path: Path, name: str, entry: FileEntry, rule: _Rule) -> tuple[str, tuple[int, ...]]:
    where = f"{path / MANIFEST_FILE}: files.{name}"
    if entry.dtype is None or entry.shape is None or entry.dtype not in DTYPES:
        raise MalformedManifest(f"{where} needs a dtype of {'/'.join(DTYPES)} and a shape; export the bundle again")
    if entry.dtype not in rule.dtypes:
        raise DtypeMismatch(
            f"{where} has dtype {entry.dtype}, must be {' or '.join(rule.dtypes)}; export the bundle again"
        )
    fits = len(entry.shape) == len(rule.shape) and all(
        wanted in (None, found) for wanted, found in zip(rule.shape, entry.shape, strict=True)
    )
    if not fits:
        raise ShapeMismatch(f"{where} has shape {entry.shape}, must be {rule.shape}; export the bundle again")
    return entry.dtype, entry.shape


def _check_values(path: Path, manifest: Manifest, arrays: Mapping[str, Array]) -> None:
    """Check that indptr arrays rise and row numbers are in range.

    Raises:
        MalformedArray: An indptr array does not rise from 0 to the number of its indices.
        RowOutOfRange: A row number points past the rows there are.
    """
    items = manifest.counts["items"]
    counts = {"seen": items, "heldout": items}
    if "item_categories_indptr.npy" in arrays:
        counts["item_categories"] = len(arrays["item_categories_names.offsets.npy"]) - 1
    for name, count in counts.items():
        if f"{name}_indptr.npy" in arrays:
            indices = arrays[f"{name}_indices.npy"]
            check_offsets(path / f"{name}_indptr.npy", arrays[f"{name}_indptr.npy"], len(indices))
            check_rows(path / f"{name}_indices.npy", indices, count)
    if ANSWER_ROWS_FILE in arrays:
        check_rows(path / ANSWER_ROWS_FILE, arrays[ANSWER_ROWS_FILE], items, lowest=-1)
    popularity = arrays["popularity.npy"]
    check_rows(path / "popularity.npy", popularity, items)
    if not np.bincount(popularity, minlength=items).all():
        raise MalformedArray(f"{path / 'popularity.npy'}: must hold every item row once; export the bundle again")


def _verify_values(path: Path, arrays: Mapping[str, Array]) -> None:
    """Check that the embeddings are finite, and that ready answers are best first and their gaps last.

    Raises:
        MalformedArray: A value is NaN or infinite, or an answer stands behind a worse one or a gap.
    """
    for name in {"user_embeddings.npy", "item_embeddings.npy", FOLD_IN_TABLE_FILE} & set(arrays):
        matrix = arrays[name]
        for start in range(0, len(matrix), CHUNK_ROWS):
            if not np.isfinite(matrix[start : start + CHUNK_ROWS]).all():
                raise MalformedArray(f"{path / name}: holds NaN or infinity; train again and export again")
    if ANSWER_ROWS_FILE in arrays:
        _verify_answers(path, arrays[ANSWER_ROWS_FILE], arrays[ANSWER_SCORES_FILE])


def _verify_shard(bundle: Bundle) -> None:
    """Check that the users are those of the shard.

    Raises:
        ForeignUser: One is not, and whoever asks for it is sent elsewhere.
    """
    shard = bundle.manifest.user_shard
    if shard is None:
        return
    for row in range(len(bundle.user_ids)):
        user_id = bundle.user_ids.get(row)
        if (home := shard.home_of(user_id)) != shard.shard:
            raise ForeignUser(
                f"{bundle.user_ids.path}: row {row}, user {user_id!r}, belongs to shard {home} of {shard.of},"
                f" and this is shard {shard.shard}; export the bundle again"
            )


def _verify_answers(path: Path, rows: Array, scores: Array) -> None:
    for start in range(0, len(rows), CHUNK_ROWS):
        there, values = rows[start : start + CHUNK_ROWS] >= 0, scores[start : start + CHUNK_ROWS]
        if not np.isfinite(values).all():
            raise MalformedArray(f"{path / ANSWER_SCORES_FILE}: holds NaN or infinity; export the bundle again")
        if (there[:, 1:] & ~there[:, :-1]).any():
            raise MalformedArray(f"{path / ANSWER_ROWS_FILE}: holds an item behind a gap; export the bundle again")
        if (there[:, 1:] & (values[:, 1:] > values[:, :-1])).any():
            raise MalformedArray(f"{path / ANSWER_SCORES_FILE}: must fall along a row; export the bundle again")
