"""The bundle: the one contract between the job that writes it and the server that reads it; standard library and NumPy.

FORMAT.md, beside this file, is the specification. A bundle answers without a server:

    bundle = open_bundle(Path("models/student/1"))
    bundle.recommend("u0007", k=5)
    bundle.similar_items("i0042")
"""

from __future__ import annotations

from export.bundle.bundle import Bundle, ScoredItem
from export.bundle.errors import (
    BundleError,
    BundleExists,
    CannotWriteBundle,
    ChecksumMismatch,
    DtypeMismatch,
    DuplicateIds,
    EngineError,
    EngineExtraMissing,
    ExportError,
    ForeignUser,
    MalformedArray,
    MalformedManifest,
    MissingFile,
    NotABundle,
    RepositoryError,
    RowOutOfRange,
    ShapeMismatch,
    SizeMismatch,
    StoreError,
    StoreExtraMissing,
    TruncatedIndex,
    UnknownId,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
    UnsupportedSchema,
    WrongAnswer,
)
from export.bundle.idtable import IdTable, StringColumn
from export.bundle.manifest import SCHEMA_VERSION, FileEntry, IndexCard, Manifest, ModelCard, compute_bundle_id
from export.bundle.opening import Place, find_bundle, open_publisher, open_repository
from export.bundle.reader import open_bundle, open_manifest
from export.bundle.repository import ModelRepository, write_file
from export.bundle.search import K_FACTOR, ExactIndex, rescore
from export.bundle.shard import UserShard, shard_of
from export.bundle.sharded import ShardedRepository
from export.bundle.versions import PREVIOUS, STABLE, ModelVersions, Publisher, Repository
from export.bundle.writer import BundleContents, write_bundle

__all__ = [
    "K_FACTOR",
    "PREVIOUS",
    "SCHEMA_VERSION",
    "STABLE",
    "Bundle",
    "BundleContents",
    "BundleError",
    "BundleExists",
    "CannotWriteBundle",
    "ChecksumMismatch",
    "DtypeMismatch",
    "DuplicateIds",
    "EngineError",
    "EngineExtraMissing",
    "ExactIndex",
    "ExportError",
    "FileEntry",
    "ForeignUser",
    "IdTable",
    "IndexCard",
    "MalformedArray",
    "MalformedManifest",
    "Manifest",
    "MissingFile",
    "ModelCard",
    "ModelRepository",
    "ModelVersions",
    "NotABundle",
    "Place",
    "Publisher",
    "Repository",
    "RepositoryError",
    "RowOutOfRange",
    "ScoredItem",
    "ShapeMismatch",
    "ShardedRepository",
    "SizeMismatch",
    "StoreError",
    "StoreExtraMissing",
    "StringColumn",
    "TruncatedIndex",
    "UnknownId",
    "UnknownLabel",
    "UnknownModel",
    "UnknownVersion",
    "UnsupportedSchema",
    "UserShard",
    "WrongAnswer",
    "compute_bundle_id",
    "find_bundle",
    "open_bundle",
    "open_manifest",
    "open_publisher",
    "open_repository",
    "rescore",
    "shard_of",
    "write_bundle",
    "write_file",
]
