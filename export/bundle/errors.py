"""Every way in which a bundle or a model repository can be wrong.

    BundleError
    ├── NotABundle            the path is not a directory with a manifest.json
    ├── BundleExists          a bundle is immutable: the target is taken
    ├── CannotWriteBundle     the disk is full, or may not be written; nothing is left of what was begun
    ├── MalformedManifest     manifest.json is not JSON, or a field of it has the wrong type or value
    ├── UnsupportedSchema     written for another schema_version
    ├── MissingFile           a required or declared file is absent or not a regular file
    ├── SizeMismatch          a file's length is not the manifest's, or not what its array header needs
    ├── ChecksumMismatch      a file's SHA-256, or the bundle_id, is not the manifest's
    ├── DtypeMismatch         an array has another element type than the manifest or the schema says
    ├── ShapeMismatch         an array has another shape than the manifest or the schema says
    ├── MalformedArray        an array file is unreadable, or its values break a rule of the schema
    ├── DuplicateIds          an id stands for two rows
    ├── ForeignUser           a user of another shard is among those of this one
    ├── RowOutOfRange         a row number points past the rows there are
    ├── TruncatedIndex        index.faiss cannot be read, or holds another number of items or dimension
    ├── UnknownId             no user or item has this id
    ├── WrongAnswer           a graph of the bundle does not compute what its arrays say
    ├── ExportError           a setting or an input of the export job is wrong
    ├── EngineError           a retrieval engine does not answer, or holds something else
    ├── EngineExtraMissing    an engine's driver is not installed
    └── RepositoryError       the model repository is wrong
        ├── UnknownModel      no such model
        ├── UnknownVersion    no such version of the model
        ├── UnknownLabel      no such label of the model
        ├── StoreError        the object store that holds it does not answer, or refuses
        └── StoreExtraMissing the object store's driver is not installed

Each message names the file and field, what is wrong, and the remedy, in one line.
"""

# Leaves are noun phrases and only roots end in Error, as in the project's naming rules.

from __future__ import annotations

from typing import ClassVar


class BundleError(Exception):
    """Root of the tree; `exit_code` 2 tells the command line whose fault it is."""

    exit_code: ClassVar[int] = 2


class NotABundle(BundleError):
    """The path is not a directory with a manifest.json."""


class BundleExists(BundleError):
    """A bundle is immutable: the target is taken."""


class CannotWriteBundle(BundleError):
    """The disk is full, or may not be written; nothing is left of what was begun."""


class MalformedManifest(BundleError):
    """manifest.json is not JSON, or a field of it has the wrong type or value."""


class UnsupportedSchema(BundleError):
    """The bundle was written for another schema_version."""


class MissingFile(BundleError):
    """A required or declared file is absent or not a regular file."""


class SizeMismatch(BundleError):
    """A file's length is not the manifest's, or not what its array header needs."""


class ChecksumMismatch(BundleError):
    """A file's SHA-256, or the bundle_id, is not the manifest's."""


class DtypeMismatch(BundleError):
    """An array has another element type than the manifest or the schema says."""


class ShapeMismatch(BundleError):
    """An array has another shape than the manifest or the schema says."""


class MalformedArray(BundleError):
    """An array file is unreadable, or its values break a rule."""


class DuplicateIds(BundleError):
    """An id stands for two rows."""


class ForeignUser(BundleError):
    """A user of another shard is among those of this one."""


class RowOutOfRange(BundleError):
    """A row number points past the rows there are."""


class UnknownId(BundleError):
    """No user or item has this id."""


class TruncatedIndex(BundleError):
    """index.faiss cannot be read, or holds another number of items or dimension."""


class WrongAnswer(BundleError):
    """A graph of the bundle does not compute what its arrays say."""


class ExportError(BundleError):
    """A setting or an input of the export job is wrong."""


class EngineError(BundleError):
    """A retrieval engine does not answer, or holds something else than it should.

    Args:
        reason: In one word: "timeout", "unreachable", "refused", "missing", "busy" or "failed".
        message: What is wrong, and the remedy.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EngineExtraMissing(BundleError):
    """An engine's driver is not installed."""


class RepositoryError(BundleError):
    """The model repository is wrong."""


class UnknownModel(RepositoryError):
    """No such model in the repository."""


class UnknownVersion(RepositoryError):
    """No such version of the model."""


class UnknownLabel(RepositoryError):
    """No such label of the model."""


class StoreError(RepositoryError):
    """The object store that holds the repository does not answer, or refuses."""


class StoreExtraMissing(RepositoryError):
    """The object store's driver is not installed."""
