"""The bundle: the one contract between the offline job that writes it and the server that reads it.

This module is the text and the names; the code is in `export/reader.py` and `export/writer.py`. The words
MUST, MUST NOT and MAY are to be read as in RFC 2119. This is schema version 1.

**Directory.** A bundle is a directory with `manifest.json` and the files that the manifest lists. Files
MUST be regular files directly inside it. A bundle is immutable: a writer MUST make it under another name,
flush it, and rename it; a reader MAY map its files for as long as it likes. Files that the manifest does
not list MAY be there and MUST be ignored. Nothing in a bundle is pickled, and a reader MUST NOT unpickle.

**Rows.** Users are numbered 0..U-1 and items 0..I-1; every array uses these row numbers, d is the embedding
dimension. Outside ids are strings and appear in the id tables only.

**Arrays** are `.npy` version 1.0, little-endian, C order. These MUST be there:

    user_ids.{offsets,bytes,slots}.npy      id tables (format: `export/idtable.py`); ids MUST be unique
    item_ids.{offsets,bytes,slots}.npy
    user_embeddings.npy                     float32 or float16, (U, d), finite
    item_embeddings.npy                     float32 or float16, (I, d), finite; the score of a user and an
                                            item is the inner product of their rows, in float32
    seen_indptr.npy  seen_indices.npy       int64 (U+1,) and int32 (counts.seen,): the items each user
                                            already has, a CSR without values
    popularity.npy                          int32 (I,): every item row once, most popular first

and these MAY, each group whole or not at all:

    item_titles.{offsets,bytes}.npy         a string column of I titles
    item_categories_names.{offsets,bytes}.npy  item_categories_indptr.npy  item_categories_indices.npy
                                            names; int64 (I+1,) and int32: rows of the names, as a CSR
    heldout_indptr.npy  heldout_indices.npy
                                            int64 (U+1,) and int32: test items of each user, to measure
                                            quality without the data set
    answer_rows.npy  answer_scores.npy      int32 and float32 (U, N), N >= 1: the answer table. For each user the
                                            exact best N items that `seen_*` does not hold for it, and their
                                            scores, best first, equal scores by rising row. Where fewer are
                                            left, -1 and 0 fill the end. A reader MUST NOT answer from it where
                                            seen items are asked for, or where it does not reach far enough

**Index and graphs.** These MUST be there:

    index.faiss       a FAISS index of I vectors of dimension d by inner product; its ids MUST be row numbers
                      (no IndexIDMap). Its scores MUST be those of `item_embeddings.npy`, unless
                      `index.search` holds `k_factor`: then a reader MUST ask it for k_factor times as many
                      items as it wants and score these by `item_embeddings.npy` (`rescore`). Every other key
                      of `index.search` is a parameter of FAISS. `index.bytes_per_item` counts what is read
                      of an item: its vector or code in the index, and with `k_factor` also its row.
    recommend.onnx    user_index int64 (B,), k int64 (1,) -> scores float32 (B, k), item_index int64 (B, k),
                      best first. Seen items are not removed. 1 <= k <= I. Its weights are the two embedding
                      files, as ONNX external data.
    fold_in.onnx      item_index int64 (H,), H >= 1 -> user_embedding float32 (d,).

**Manifest.** JSON in UTF-8, an object whose fields are those of `export.bundle.manifest.Manifest`; a field that is
not known MAY be there and MUST be ignored. `files` MUST list every file but the manifest with its length
and SHA-256, and for arrays dtype and shape. A file name MUST be plain: letters, digits, `_`, `-`, `.`, and
no leading dot. `bundle_id` MUST be the SHA-256 over the lines of `sha256sum` (digest, two spaces, name,
newline) of all files, sorted by name: equal content, equal id, whenever it was written.

**Reading.** A reader MUST check, before it answers from a bundle: schema version, presence, length, dtype
and shape of every file, that indptr arrays rise, and that row numbers are in range. It MUST check
checksums, unique ids and finite embeddings before a bundle is used for the first time (`verify=True`), and
MAY skip these later.
"""

from __future__ import annotations

from export.bundle.errors import (
    BundleError,
    BundleExists,
    CannotWriteBundle,
    ChecksumMismatch,
    DtypeMismatch,
    DuplicateIds,
    ExportError,
    MalformedArray,
    MalformedManifest,
    MissingFile,
    NotABundle,
    RepositoryError,
    RowOutOfRange,
    ShapeMismatch,
    SizeMismatch,
    TruncatedIndex,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
    UnsupportedSchema,
    WrongAnswer,
)
from export.bundle.idtable import IdTable, StringColumn
from export.bundle.manifest import SCHEMA_VERSION, FileEntry, IndexCard, Manifest, ModelCard, compute_bundle_id
from export.bundle.reader import Bundle, open_bundle, open_manifest
from export.bundle.rescoring import K_FACTOR, rescore
from export.bundle.writer import BundleContents, write_bundle

__all__ = [
    "K_FACTOR",
    "SCHEMA_VERSION",
    "Bundle",
    "BundleContents",
    "BundleError",
    "BundleExists",
    "CannotWriteBundle",
    "ChecksumMismatch",
    "DtypeMismatch",
    "DuplicateIds",
    "ExportError",
    "FileEntry",
    "IdTable",
    "IndexCard",
    "MalformedArray",
    "MalformedManifest",
    "Manifest",
    "MissingFile",
    "ModelCard",
    "NotABundle",
    "RepositoryError",
    "RowOutOfRange",
    "ShapeMismatch",
    "SizeMismatch",
    "StringColumn",
    "TruncatedIndex",
    "UnknownLabel",
    "UnknownModel",
    "UnknownVersion",
    "UnsupportedSchema",
    "WrongAnswer",
    "compute_bundle_id",
    "open_bundle",
    "open_manifest",
    "rescore",
    "write_bundle",
]
