"""`manifest.json`, what a bundle says about itself: its fields, its canonical bytes and its strict reader.

Bytes are canonical (sorted keys, two spaces, UTF-8, one newline at the end): equal manifests are equal files.
Reading never trusts: every field has a type, file names cannot leave the bundle, numbers are bounded.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn, TypeVar

from export.bundle.errors import ChecksumMismatch, MalformedManifest, UnsupportedSchema
from export.bundle.shard import MAXIMUM_SHARDS, UserShard

SCHEMA_VERSION = 2
"""The newest; a bundle without a fold-in table is of the first."""
SCHEMA_VERSIONS = (1, SCHEMA_VERSION)
MANIFEST_FILE = "manifest.json"
INDEX_FILE, RECOMMEND_FILE, FOLD_IN_FILE = "index.faiss", "recommend.onnx", "fold_in.onnx"
GRAPH_FILES = (INDEX_FILE, RECOMMEND_FILE, FOLD_IN_FILE)
ANSWER_ROWS_FILE, ANSWER_SCORES_FILE = "answer_rows.npy", "answer_scores.npy"
FOLD_IN_TABLE_FILE = "fold_in_embeddings.npy"
OF_ITEMS = ("item_embeddings.", "item_ids.")
"""Beginnings of the names of the files that say which items there are, and where."""
MAXIMUM_MANIFEST_BYTES = 4 * 1024 * 1024
MAXIMUM_ROWS = 2**31 - 1
"""Row numbers are int32."""

MAXIMUM_TEXT = 1024
"""Characters of a text field: it goes into answers, metrics and messages."""
SEARCH_PARAMETERS = {"k_factor": 1024, "nprobe": 2**16, "efSearch": 2**14}
"""What `index.search` may hold, and the most of each: a query takes memory and time in proportion."""

QUALITY_NUMBERS = ("recall@20", "ndcg@20", "teacher_recall@20", "teacher_ndcg@20", "kept_recall")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle: length, SHA-256 in hexadecimal, and for an array its dtype and shape."""

    bytes: int
    sha256: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ModelCard:
    """What was trained.

    Attributes:
        name: Model name in the repository.
        version: Version in the repository, a positive integer as text.
        backbone: Backbone that produced the embeddings.
        method: Distillation method, or how a rival was built.
        dim: Embedding dimension d.
        num_parameters: Numbers stored in the two embedding matrices.
        teacher: Name of the teacher, or None.
    """

    name: str
    version: str
    backbone: str
    method: str
    dim: int
    num_parameters: int
    teacher: str | None = None


@dataclass(frozen=True)
class IndexCard:
    """Which index was chosen and what was measured.

    Attributes:
        factory: FAISS factory string.
        search: How to ask it, e.g. {"efSearch": 64} or {"nprobe": 16, "k_factor": 4}; see FORMAT.md.
        ann_recall: Share of the exact top `ann_recall_k` that the index finds.
        ann_recall_k: List length at which it was measured.
        bytes_per_item: Bytes read of an item: vector or code in the index, and its row if rescored; links not counted.
        candidates: The measured table: factory, search, and ann_recall, median_us, p99_us, bytes_per_item (of the index
            file), code_bytes (`bytes_per_item` of this card), build_seconds and pareto, or skipped: why it was not
            built. An older bundle has fewer columns.
    """

    factory: str
    search: dict[str, int]
    ann_recall: float
    ann_recall_k: int
    bytes_per_item: float
    candidates: list[dict[str, Any]]


@dataclass(frozen=True)
class Manifest:
    """The whole manifest.

    Attributes:
        schema_version: One of `SCHEMA_VERSIONS`.
        bundle_id: Content hash of the files (see `compute_bundle_id`).
        producer: Program and version that wrote the bundle.
        created: UTC time, ISO 8601; not part of the content.
        model: What was trained.
        counts: {"users", "items", "seen"}.
        quality: Reported test quality and its convention.
        data: {"name", "fingerprint"} of the data set.
        index: The chosen index.
        fold_in: Settings of folding in, and its Recall@20 on validation users whom the choice of them held out.
        files: Every file but the manifest, by name.
        user_shard: Which users it has; None for all. `quality`, `index`, `fold_in` and `model` are then those of all
            users and items together, `counts` and `files` those of the bundle.
    """

    schema_version: int
    bundle_id: str
    producer: str
    created: str
    model: ModelCard
    counts: dict[str, int]
    quality: dict[str, Any]
    data: dict[str, str]
    index: IndexCard
    fold_in: dict[str, Any]
    files: dict[str, FileEntry]
    user_shard: UserShard | None = None

    def named(self, model: str, version: str) -> Manifest:
        """The manifest of the same content as a version of a model: `bundle_id` names neither."""
        return replace(self, model=replace(self.model, name=model, version=version))

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        values = asdict(self)
        if self.user_shard is None:
            del values["user_shard"]
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode("utf-8")

    @property
    def items_id(self) -> str:
        """What names the items as `bundle_id` does the bundle: of their vectors and ids, the same in all shards."""
        return compute_bundle_id({name: entry for name, entry in self.files.items() if name.startswith(OF_ITEMS)})

    @property
    def total_bytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(entry.bytes for entry in self.files.values())

    @property
    def answer_table(self) -> int:
        """Number N of ready answers a user; 0 where the bundle has none."""
        entry = self.files.get(ANSWER_ROWS_FILE)
        return entry.shape[1] if entry and entry.shape and len(entry.shape) == 2 else 0


def compute_bundle_id(files: Mapping[str, FileEntry]) -> str:
    """SHA-256 over the lines `<sha256>  <name>`, sorted by name, as `sha256sum *` prints them."""
    lines = "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Read a manifest from bytes.

    Args:
        content: The file's bytes.
        where: Path of the file, for errors.

    Raises:
        MalformedManifest: Not JSON, or a field has a wrong type or value.
        UnsupportedSchema: Written for another schema version.
        ChecksumMismatch: `bundle_id` is not that of `files`.
    """
    root = _Reader(_decode(content, where), where, "")
    schema_version = root.integer("schema_version", maximum=MAXIMUM_ROWS)
    if schema_version not in SCHEMA_VERSIONS:
        raise UnsupportedSchema(
            f"{where}: schema_version {schema_version}, this program reads {' and '.join(map(str, SCHEMA_VERSIONS))};"
            " export the bundle again or use the Lowpass that wrote it"
        )
    files = _read_files(root.child("files"))
    counts = root.child("counts")
    data = root.child("data")
    manifest = Manifest(
        schema_version=schema_version,
        bundle_id=root.text("bundle_id"),
        producer=root.text("producer"),
        created=root.text("created"),
        model=_read_model(root.child("model")),
        counts={
            "users": counts.integer("users", minimum=1),
            "items": counts.integer("items", minimum=1),
            "seen": counts.integer("seen", maximum=2**53),
        },
        quality=_read_quality(root.child("quality")),
        data={"name": data.text("name"), "fingerprint": data.text("fingerprint")},
        index=_read_index(root.child("index")),
        fold_in=root.child("fold_in").values,
        files=files,
        user_shard=_read_shard(root.child("user_shard")) if "user_shard" in root.values else None,
    )
    if manifest.bundle_id != compute_bundle_id(files):
        raise ChecksumMismatch(f"{where}: bundle_id is not the hash of its files; export the bundle again")
    return manifest


def _decode(content: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(
            content.decode("utf-8"),
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_bounded,
            object_pairs_hook=_unique,
        )
        # Half of a surrogate pair may stand in JSON, and can be written nowhere else.
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise MalformedManifest(f"{where}: not JSON ({error}); export the bundle again") from error
    if not isinstance(values, dict):
        raise MalformedManifest(f"{where}: must be a JSON object; export the bundle again")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits[:20])


def _bounded(digits: str) -> int:
    return int(digits) if len(digits) <= 300 else _refuse(f"{digits[:20]}…")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return values


@dataclass(frozen=True)
class _Reader:
    """Typed access to one JSON object; `prefix` is its place in the document."""

    values: dict[str, Any]
    where: str
    prefix: str

    def take(self, key: str, kind: type[T]) -> T:
        if key not in self.values:
            raise self.wrong(key, "is missing")
        value = self.values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"must be {kind.__name__}, not {type(value).__name__}")
        return value

    def text(self, key: str) -> str:
        text = self.take(key, str)
        if len(text) > MAXIMUM_TEXT or not text.isprintable():
            raise self.wrong(key, f"must be at most {MAXIMUM_TEXT} printable characters")
        return text

    def optional_text(self, key: str) -> str | None:
        return None if self.values.get(key) is None else self.text(key)

    def integer(self, key: str, minimum: int = 0, maximum: int = MAXIMUM_ROWS) -> int:
        value = self.take(key, int)
        if not minimum <= value <= maximum:
            raise self.wrong(key, f"must be from {minimum} to {maximum}")
        return value

    def number(self, key: str, maximum: float = math.inf) -> float:
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "must be a number")
        if not 0 <= value <= maximum:
            raise self.wrong(key, f"must be from 0 to {maximum:g}")
        return float(value)

    def child(self, key: str) -> _Reader:
        return _Reader(self.take(key, dict), self.where, f"{self.prefix}{key}.")

    def wrong(self, key: str, what: str) -> MalformedManifest:
        return MalformedManifest(f"{self.where}: {self.prefix}{key} {what}; export the bundle again")


def _read_model(model: _Reader) -> ModelCard:
    return ModelCard(
        name=model.text("name"),
        version=model.text("version"),
        backbone=model.text("backbone"),
        method=model.text("method"),
        dim=model.integer("dim", minimum=1, maximum=2**20),
        num_parameters=model.integer("num_parameters", maximum=2**53),
        teacher=model.optional_text("teacher"),
    )


def _read_quality(quality: _Reader) -> dict[str, Any]:
    for key in QUALITY_NUMBERS:
        if quality.values.get(key) is not None:
            quality.number(key)
    return quality.values


def _read_index(index: _Reader) -> IndexCard:
    candidates = index.take("candidates", list)
    if not all(isinstance(row, dict) for row in candidates):
        raise index.wrong("candidates", "must be a list of objects")
    return IndexCard(
        factory=index.text("factory"),
        search=_read_search(index.child("search")),
        ann_recall=index.number("ann_recall", maximum=1.0),
        ann_recall_k=index.integer("ann_recall_k", minimum=1, maximum=1000),
        bytes_per_item=index.number("bytes_per_item"),
        candidates=candidates,
    )


def _read_shard(shard: _Reader) -> UserShard:
    of = shard.integer("of", minimum=2, maximum=MAXIMUM_SHARDS)
    return UserShard(shard.integer("shard", maximum=of - 1), of)


def _read_search(search: _Reader) -> dict[str, int]:
    for key in search.values:
        if key not in SEARCH_PARAMETERS:
            raise search.wrong(repr(key)[:80], f"is none of {', '.join(SEARCH_PARAMETERS)}")
    return {key: search.integer(key, minimum=1, maximum=SEARCH_PARAMETERS[key]) for key in search.values}


def _read_files(files: _Reader) -> dict[str, FileEntry]:
    entries: dict[str, FileEntry] = {}
    for name in files.values:
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
            raise files.wrong(repr(name)[:140], "is not a plain file name")
        entry = files.child(name)
        sha256 = entry.text("sha256")
        if not _SHA256.fullmatch(sha256):
            raise entry.wrong("sha256", "must be 64 hexadecimal digits")
        size = entry.integer("bytes", maximum=2**53)
        entries[name] = FileEntry(size, sha256, entry.optional_text("dtype"), _read_shape(entry))
    return entries


def _read_shape(entry: _Reader) -> tuple[int, ...] | None:
    if entry.values.get("shape") is None:
        return None
    shape = entry.take("shape", list)
    if len(shape) > 8 or not all(type(n) is int and 0 <= n <= 2**53 for n in shape):
        raise entry.wrong("shape", "must be a list of counts")
    return tuple(shape)
