"""A bundle from a stranger, its checksums made right again: it is refused by a named error, or read as it says."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import BundleError, FileEntry, compute_bundle_id, open_bundle
from export.bundle.arrays import sha256_of
from export.bundle.index_file import pack_index_header
from export.bundle.manifest import MANIFEST_FILE, parse_manifest
from tests.export.toy import DIM, ITEMS, toy_contents, write_toy

pytestmark = pytest.mark.fuzz

MEMORY = 1 << 30
NAMES = sorted(
    f"{name}.npy"
    for name in (
        *(f"{table}.{part}" for table in ("user_ids", "item_ids") for part in ("offsets", "bytes", "slots")),
        *("user_embeddings", "item_embeddings", "fold_in_embeddings", "seen_indptr", "seen_indices", "popularity"),
        *("item_titles.offsets", "item_titles.bytes", "item_categories_names.offsets", "item_categories_indptr"),
        *("item_categories_names.bytes", "item_categories_indices", "heldout_indptr", "heldout_indices"),
        *("answer_rows", "answer_scores"),
    )
)
NUMBERS = st.sampled_from([-1, 0, 1, 3, 4, 5, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400]) | st.integers()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Whatever asks for more than a GiB gets a MemoryError, which is no bundle error."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "good"
    rows = np.array([[0, 2, 3], [1, 0, 3], [2, 0, -1]])
    answers = np.array([[1, 0, 0]] * 3, dtype=np.float32)
    table = np.eye(ITEMS, DIM, dtype=np.float32)
    write_toy(path, replace(toy_contents(), answer_rows=rows, answer_scores=answers, fold_in_embeddings=table))
    return path


@pytest.fixture(scope="module")
def spoilt(good: Path) -> Path:
    path = good.with_name("spoilt")
    shutil.copytree(good, path)
    return path


def restore(good: Path, spoilt: Path, *names: str) -> None:
    for name in (*names, MANIFEST_FILE):
        shutil.copyfile(good / name, spoilt / name)


def declare(spoilt: Path, name: str, **changes: Any) -> None:
    """Make the manifest tell the truth of a file, but for `changes`."""
    document = json.loads((spoilt / MANIFEST_FILE).read_bytes())
    size, digest = (spoilt / name).stat().st_size, sha256_of(spoilt / name)
    document["files"][name].update(bytes=size, sha256=digest, **changes)
    entries = {file: FileEntry(entry["bytes"], entry["sha256"]) for file, entry in document["files"].items()}
    document["bundle_id"] = compute_bundle_id(entries)
    (spoilt / MANIFEST_FILE).write_text(json.dumps(document))


def read_and_ask(path: Path) -> None:
    """Open it in both ways; what opens must answer, with rows that are there and scores that fall."""
    for copy_up_to in (0, 1 << 20):
        wrong = ""
        try:
            bundle = open_bundle(path, copy_up_to=copy_up_to)
        except BundleError as error:
            wrong = str(error)
        if wrong:
            assert str(path) in wrong
            assert "\n" not in wrong
            continue
        assert bundle.manifest.to_bytes()
        for row in range(len(bundle.user_ids)):
            scores = [item.score for item in bundle.recommend(bundle.user_ids.get(row), k=ITEMS)]
            assert scores == sorted(scores, reverse=True)
        assert len(bundle.similar_items(bundle.item_ids.get(0))) == len(bundle.item_ids) - 1


def splice(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in edits:
        at = place % (len(content) + 1)
        content = content[:at] + new + content[at + length :]
    return content


EDITS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=3)


@given(edits=EDITS)
def test_bytes_of_the_manifest(good: Path, spoilt: Path, edits: list[tuple[int, int, bytes]]) -> None:
    restore(good, spoilt)
    (spoilt / MANIFEST_FILE).write_bytes(splice((good / MANIFEST_FILE).read_bytes(), edits))
    read_and_ask(spoilt)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@given(data=st.data(), value=JSON, again=st.booleans())
def test_fields_of_the_manifest(good: Path, spoilt: Path, data: st.DataObject, value: object, again: bool) -> None:
    restore(good, spoilt)
    document = json.loads((good / MANIFEST_FILE).read_bytes())
    *above, key = data.draw(st.sampled_from(list(places(document))))
    inner: Any = document
    for step in above:
        inner = inner[step]
    inner[key] = value
    if again:
        key = data.draw(st.sampled_from(["quality", "index", "fold_in", "model", "counts", "data"]))
        if isinstance(document[key], dict):
            document[key][data.draw(st.text(max_size=8))] = data.draw(JSON)
    (spoilt / MANIFEST_FILE).write_text(json.dumps(document))
    read_and_ask(spoilt)


@given(name=st.sampled_from(NAMES), edits=EDITS)
def test_bytes_of_an_array_file(good: Path, spoilt: Path, name: str, edits: list[tuple[int, int, bytes]]) -> None:
    restore(good, spoilt, name)
    (spoilt / name).write_bytes(splice((good / name).read_bytes(), edits))
    declare(spoilt, name)
    read_and_ask(spoilt)
    restore(good, spoilt, name)


@given(name=st.sampled_from(NAMES), data=st.data())
def test_a_header_that_lies(good: Path, spoilt: Path, name: str, data: st.DataObject) -> None:
    restore(good, spoilt, name)
    shape = data.draw(st.lists(NUMBERS, max_size=4))
    described = data.draw(st.sampled_from(["<f4", "<f2", "<i8", "<i4", "|u1", "<f8", "|O", ">i4", "<U9"]) | JSON)
    order = data.draw(st.booleans() | JSON)
    text = repr({"descr": described, "fortran_order": order, "shape": tuple(shape)})
    text = data.draw(
        st.sampled_from([text, text.ljust(117) + "\n", "(" * 500, "-" * 900 + "1", text * 9, "\0", "'\\d'"])
    )
    body = text.encode("utf-8", "surrogatepass")[:65535]
    values = (good / name).read_bytes()[128:]
    values = values[: data.draw(st.integers(0, len(values)))] if data.draw(st.booleans()) else values
    (spoilt / name).write_bytes(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + values)
    declare(
        spoilt, name, shape=shape, dtype=data.draw(st.sampled_from(["float32", "float16", "int64", "int32", "uint8"]))
    )
    read_and_ask(spoilt)
    restore(good, spoilt, name)


@given(name=st.sampled_from(NAMES), data=st.data())
def test_an_array_of_other_values(good: Path, spoilt: Path, name: str, data: st.DataObject) -> None:
    restore(good, spoilt, name)
    found = np.load(good / name)
    drawn = data.draw(st.lists(NUMBERS | st.floats(), min_size=found.size, max_size=found.size))
    with np.errstate(all="ignore"):
        values = np.array([float(min(max(value, -1e40), 1e40)) for value in drawn])
        values = np.nan_to_num(values) if found.dtype.kind in "iu" else values
        changed = np.where(np.arange(found.size) < data.draw(st.integers(0, found.size)), values, found.ravel())
        np.save(spoilt / name, changed.clip(-(2.0**62), 2.0**62).astype(found.dtype).reshape(found.shape))
    declare(spoilt, name)
    read_and_ask(spoilt)
    restore(good, spoilt, name)


@given(head=st.binary(max_size=40), cut=st.integers(0, 50), items=NUMBERS, dim=NUMBERS)
def test_the_first_bytes_of_an_index(good: Path, spoilt: Path, head: bytes, cut: int, items: int, dim: int) -> None:
    whole = pack_index_header(b"IxFI", items % 2**63, dim % 2**31) + b"placeholder"
    (spoilt / "index.faiss").write_bytes((head + whole[len(head) :])[: len(whole) - cut])
    restore(good, spoilt)
    declare(spoilt, "index.faiss")
    read_and_ask(spoilt)
    restore(good, spoilt, "index.faiss")


@given(content=st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789eE+-. \\uNaInfity', max_size=200))
def test_what_is_no_manifest(content: bytes | str) -> None:
    raw = content.encode() if isinstance(content, str) else content
    with pytest.raises(BundleError):
        parse_manifest(raw, "manifest.json")
