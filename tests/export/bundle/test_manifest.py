from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle.errors import BundleError, ChecksumMismatch, MalformedManifest, UnsupportedSchema
from export.bundle.manifest import SCHEMA_VERSIONS, FileEntry, compute_bundle_id, parse_manifest
from tests.export.toy import toy_manifest

FILES = {"a.npy": FileEntry(136, "0" * 64, "float32", (2, 1)), "b.onnx": FileEntry(7, "1" * 64)}


def toy_bytes() -> bytes:
    manifest = toy_manifest()
    counts = {"users": 3, "items": 4, "seen": 3}
    return replace(manifest, files=FILES, counts=counts, bundle_id=compute_bundle_id(FILES)).to_bytes()


GOLDEN = b"""{
  "bundle_id": "8b74aa9b6a82cdda5b06eeb03f7189051ffeb75ec1f9e5e5e91ef774e6b6aad2",
  "counts": {
    "items": 4,
    "seen": 3,
    "users": 3
  },
  "created": "2026-01-01T00:00:00+00:00",
  "data": {
    "fingerprint": "0000000000000000000000000000000000000000000000000000000000000000",
    "name": "toy"
  },
  "files": {
    "a.npy": {
      "bytes": 136,
      "dtype": "float32",
      "sha256": "0000000000000000000000000000000000000000000000000000000000000000",
      "shape": [
        2,
        1
      ]
    },
    "b.onnx": {
      "bytes": 7,
      "dtype": null,
      "sha256": "1111111111111111111111111111111111111111111111111111111111111111",
      "shape": null
    }
  },
  "fold_in": {
    "gram_weight": 0.01,
    "ridge": 0.1
  },
  "index": {
    "ann_recall": 1.0,
    "ann_recall_k": 2,
    "bytes_per_item": 16.0,
    "candidates": [],
    "factory": "Flat",
    "search": {}
  },
  "model": {
    "backbone": "bprmf",
    "dim": 4,
    "method": "scratch",
    "name": "toy",
    "num_parameters": 28,
    "teacher": null,
    "version": "1"
  },
  "producer": "lowpass test",
  "quality": {
    "convention": "toy",
    "ndcg@20": 0.25,
    "recall@20": 0.5,
    "teacher_recall@20": null
  },
  "schema_version": 1
}
"""


def test_golden_bytes() -> None:
    assert toy_bytes() == GOLDEN


def test_golden_bytes_read_back_as_they_were() -> None:
    assert parse_manifest(GOLDEN, "manifest.json").to_bytes() == GOLDEN


def test_the_id_is_that_of_the_sha256sum_program() -> None:
    lines = "0" * 64 + "  a.npy\n" + "1" * 64 + "  b.onnx\n"
    assert compute_bundle_id(FILES) == hashlib.sha256(lines.encode()).hexdigest()


def test_fields_of_tomorrow_are_ignored() -> None:
    document = json.loads(GOLDEN) | {"tomorrow": [1]}
    assert parse_manifest(json.dumps(document).encode(), "manifest.json").model.name == "toy"


def spoil(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(GOLDEN)
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda d: d.pop("model"), "model"),
        (lambda d: d.update(model=[]), "model"),
        (lambda d: d["model"].update(dim="4"), "model.dim"),
        (lambda d: d["model"].update(dim=0), "model.dim"),
        (lambda d: d["model"].update(dim=True), "model.dim"),
        (lambda d: d["model"].update(dim=4.0), "model.dim"),
        (lambda d: d["model"].update(teacher=1), "model.teacher"),
        (lambda d: d["counts"].update(users=-1), "counts.users"),
        (lambda d: d["counts"].update(items=10**30), "counts.items"),
        (lambda d: d["quality"].update({"recall@20": "high"}), "recall@20"),
        (lambda d: d["index"].update(search={"efSearch": "64"}), "index.search.efSearch"),
        (lambda d: d["index"].update(candidates=[1]), "index.candidates"),
        (lambda d: d["index"].update(ann_recall=None), "index.ann_recall"),
        (lambda d: d.update(fold_in=None), "fold_in"),
        (lambda d: d.update(schema_version="1"), "schema_version"),
        (lambda d: d["files"]["a.npy"].update(sha256="0" * 63), "sha256"),
        (lambda d: d["files"]["a.npy"].update(bytes=-1), "bytes"),
        (lambda d: d["files"]["a.npy"].update(shape=[-1]), "shape"),
        (lambda d: d["files"]["a.npy"].update(shape=[1] * 99), "shape"),
        (lambda d: d["files"]["a.npy"].update(shape="2"), "shape"),
        (lambda d: d["files"].update({"c.npy": 1}), "c.npy"),
    ],
)
def test_a_wrong_field_is_named(change: Callable[[dict[str, Any]], object], field: str) -> None:
    with pytest.raises(MalformedManifest, match=field):
        parse_manifest(spoil(change), "manifest.json")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/b", "..", ".hidden", "", "a\\b", "a\0b", "manifest.json", "x" * 200]
)
def test_a_file_name_cannot_leave_the_bundle(name: str) -> None:
    content = spoil(lambda d: d["files"].update({name: d["files"]["b.onnx"]}))
    with pytest.raises(MalformedManifest, match="plain file name"):
        parse_manifest(content, "manifest.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"null", b"[]", b"{", b"[" * 100_000, b'{"a": NaN}', b'{"a": 1, "a": 2}', b"1" * 5000],
)
def test_what_is_no_json_object_is_malformed(content: bytes) -> None:
    with pytest.raises(MalformedManifest):
        parse_manifest(content, "manifest.json")


@pytest.mark.parametrize("version", [0, 3])
def test_another_schema_version_is_refused_before_anything_else(version: int) -> None:
    with pytest.raises(UnsupportedSchema, match=str(version)):
        parse_manifest(json.dumps({"schema_version": version}).encode(), "manifest.json")


def test_an_id_that_is_not_the_hash_of_the_files_is_refused() -> None:
    with pytest.raises(ChecksumMismatch, match="bundle_id"):
        parse_manifest(spoil(lambda d: d.update(bundle_id="0" * 64)), "manifest.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(path=st.sampled_from(["model", "counts", "index", "files", "quality", "data", "schema_version"]), value=JSON)
def test_any_json_in_any_place_is_read_or_a_bundle_error(path: str, value: object) -> None:
    content = spoil(lambda d: d.update({path: value}))
    with suppress(BundleError):
        assert parse_manifest(content, "manifest.json").schema_version in SCHEMA_VERSIONS
