"""One test per way of being wrong: a good toy bundle, spoilt by hand."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import (
    Bundle,
    BundleContents,
    BundleError,
    BundleExists,
    CannotWriteBundle,
    ChecksumMismatch,
    DtypeMismatch,
    DuplicateIds,
    FileEntry,
    MalformedArray,
    MalformedManifest,
    MissingFile,
    NotABundle,
    RowOutOfRange,
    ShapeMismatch,
    SizeMismatch,
    compute_bundle_id,
    open_bundle,
    write_bundle,
)
from export.bundle.arrays import Array, save_array, sha256_of
from tests.export.toy import toy_contents, toy_manifest, write_placeholders, write_toy


def edit_manifest(bundle: Path, **changes: Any) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes()) | changes
    entries = {name: FileEntry(entry["bytes"], entry["sha256"]) for name, entry in document["files"].items()}
    document["bundle_id"] = compute_bundle_id(entries)
    path.write_text(json.dumps(document))


def replace_array(bundle: Path, name: str, values: Array, **declared: Any) -> None:
    """Put another array in the place of one, its manifest entry telling the truth unless `declared` says otherwise."""
    save_array(bundle / name, values)
    files = json.loads((bundle / "manifest.json").read_bytes())["files"]
    files[name] = {
        "bytes": (bundle / name).stat().st_size,
        "sha256": sha256_of(bundle / name),
        "dtype": values.dtype.name,
        "shape": list(values.shape),
        **declared,
    }
    edit_manifest(bundle, files=files)


def test_what_was_written_is_read(toy: Path) -> None:
    bundle = open_bundle(toy)
    assert open_bundle(str(toy)).manifest == bundle.manifest, "a path may be text"
    wanted = toy_contents()
    assert bundle.user_ids.take(range(3)) == wanted.user_ids
    assert bundle.item_ids.index_many(["i3", "?"]).tolist() == [3, -1]
    np.testing.assert_array_equal(bundle.user_embeddings, wanted.user_embeddings)
    np.testing.assert_array_equal(bundle.item_embeddings, wanted.item_embeddings)
    assert [bundle.seen(user).tolist() for user in range(3)] == [[1], [2], [3]]
    assert bundle.popularity.tolist() == [3, 1, 2, 0]
    assert bundle.item_titles is not None
    assert bundle.item_titles.take([2, 3]) == ["Two — deux", ""]
    assert bundle.manifest.counts == {"users": 3, "items": 4, "seen": 3}
    assert categories_of(bundle, 0) == ["a", "b"]
    assert bundle.heldout_indices is not None
    assert bundle.heldout_indices.tolist() == [0, 1]
    assert bundle.index_path.read_bytes().endswith(b"placeholder")


def categories_of(bundle: Bundle, item: int) -> list[str]:
    assert bundle.category_names is not None
    assert bundle.category_indptr is not None
    assert bundle.category_indices is not None
    start, end = bundle.category_indptr[item : item + 2]
    return bundle.category_names.take(bundle.category_indices[start:end])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_arrays_are_read_only_maps_of_the_stored_type(tmp_path: Path, dtype: str) -> None:
    write_toy(tmp_path / "1", toy_contents(dtype))
    bundle = open_bundle(tmp_path / "1")
    assert isinstance(bundle.item_embeddings, np.memmap)
    assert bundle.item_embeddings.dtype == dtype
    with pytest.raises(ValueError, match="read-only"):
        bundle.item_embeddings[0, 0] = 1


def test_optional_parts_may_be_absent(tmp_path: Path) -> None:
    bare = replace(toy_contents(), item_titles=None, item_categories=None, heldout_indptr=None, heldout_indices=None)
    write_toy(tmp_path / "1", bare)
    bundle = open_bundle(tmp_path / "1")
    assert bundle.item_titles is None
    assert bundle.category_names is None
    assert bundle.heldout_indptr is None


def test_users_without_items_have_seen_nothing(tmp_path: Path) -> None:
    nothing = np.zeros(0, dtype=np.int32)
    write_toy(tmp_path / "1", replace(toy_contents(), seen_indptr=np.zeros(4, np.int64), seen_indices=nothing))
    assert open_bundle(tmp_path / "1").seen(2).tolist() == []


@pytest.mark.parametrize("user", [-1, 3])
def test_seen_of_a_user_that_is_not_there(toy: Path, user: int) -> None:
    with pytest.raises(RowOutOfRange):
        open_bundle(toy).seen(user)


def test_equal_content_has_an_equal_id_whenever_it_was_written(tmp_path: Path) -> None:
    first = write_toy(tmp_path / "1")
    later = replace(toy_manifest(version="9"), created="2030-01-01T00:00:00+00:00")
    second = write_bundle(tmp_path / "2", later, toy_contents(), write_placeholders)
    assert first.bundle_id == second.bundle_id
    other = write_toy(tmp_path / "3", replace(toy_contents(), popularity=np.array([0, 1, 2, 3])))
    assert other.bundle_id != first.bundle_id


def test_a_bundle_is_never_overwritten(toy: Path) -> None:
    before = (toy / "manifest.json").read_bytes()
    with pytest.raises(BundleExists, match="immutable"):
        write_toy(toy)
    assert (toy / "manifest.json").read_bytes() == before


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(draft: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(CannotWriteBundle, match="disk full"):
        write_bundle(tmp_path / "m" / "1", toy_manifest(), toy_contents(), fail)
    assert not list(tmp_path.iterdir()), "nor an empty model"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"user_ids": ["ann", "ann", "bob"]}, DuplicateIds),
        ({"user_embeddings": np.eye(2, 4, dtype=np.float32)}, ShapeMismatch),
        ({"user_embeddings": np.eye(3, 4)}, MalformedArray),
        ({"seen_indices": np.array([1, 2, 4])}, RowOutOfRange),
        ({"popularity": np.array([0, 0, 1, 2])}, MalformedArray),
        ({"item_titles": ["one"]}, ShapeMismatch),
    ],
)
def test_what_would_not_open_is_not_written(tmp_path: Path, change: dict[str, Any], error: type[BundleError]) -> None:
    contents: BundleContents = replace(toy_contents(), **change)
    with pytest.raises(error):
        write_toy(tmp_path / "m" / "1", contents)
    assert not list(tmp_path.iterdir()), "nor an empty model"


def test_not_a_bundle(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotABundle, match="manifest"):
            open_bundle(path)


def test_missing_file(toy: Path) -> None:
    (toy / "index.faiss").unlink()
    with pytest.raises(MissingFile, match="index"):
        open_bundle(toy, verify=False)


def test_a_link_is_not_a_file_of_the_bundle(toy: Path, tmp_path: Path) -> None:
    (toy / "index.faiss").rename(tmp_path / "elsewhere")
    (toy / "index.faiss").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MissingFile, match="index"):
        open_bundle(toy)


@pytest.mark.parametrize("name", ["popularity.npy", "recommend.onnx", "item_titles.bytes.npy", "heldout_indptr.npy"])
def test_a_file_that_the_manifest_must_list(toy: Path, name: str) -> None:
    files = json.loads((toy / "manifest.json").read_bytes())["files"]
    del files[name]
    edit_manifest(toy, files=files)
    with pytest.raises(MissingFile, match=name):
        open_bundle(toy, verify=False)


@pytest.mark.parametrize("name", ["index.faiss", "user_embeddings.npy"])
def test_size_mismatch(toy: Path, name: str) -> None:
    content = (toy / name).read_bytes()
    (toy / name).write_bytes(content[:-1])
    with pytest.raises(SizeMismatch, match=name):
        open_bundle(toy, verify=False)


def test_an_array_shorter_than_its_header(toy: Path) -> None:
    path = toy / "popularity.npy"
    path.write_bytes(path.read_bytes()[:-4])
    files = json.loads((toy / "manifest.json").read_bytes())["files"]
    files["popularity.npy"].update(bytes=path.stat().st_size, sha256=sha256_of(path))
    edit_manifest(toy, files=files)
    with pytest.raises(SizeMismatch, match="header"):
        open_bundle(toy)


@pytest.mark.parametrize("name", ["index.faiss", "user_embeddings.npy"])
def test_checksum_mismatch(toy: Path, name: str) -> None:
    content = bytearray((toy / name).read_bytes())
    content[-1] ^= 1
    (toy / name).write_bytes(content)
    with pytest.raises(ChecksumMismatch, match=name):
        open_bundle(toy)
    open_bundle(toy, verify=False)


def test_dtype_of_the_file_is_not_the_manifests(toy: Path) -> None:
    replace_array(toy, "popularity.npy", np.arange(4, dtype=np.int64), dtype="int32")
    with pytest.raises(DtypeMismatch, match="popularity"):
        open_bundle(toy)


def test_dtype_of_the_manifest_is_not_the_schemas(toy: Path) -> None:
    replace_array(toy, "popularity.npy", np.arange(4, dtype=np.int64))
    with pytest.raises(DtypeMismatch, match="popularity"):
        open_bundle(toy)


def test_shape_of_the_file_is_not_the_manifests(toy: Path) -> None:
    replace_array(toy, "popularity.npy", np.arange(4, dtype=np.int32).reshape(2, 2), shape=[4])
    with pytest.raises(ShapeMismatch, match="popularity"):
        open_bundle(toy)


def test_shape_of_the_manifest_is_not_the_schemas(toy: Path) -> None:
    replace_array(toy, "user_embeddings.npy", np.eye(3, 5, dtype=np.float32))
    with pytest.raises(ShapeMismatch, match="user_embeddings"):
        open_bundle(toy)


@pytest.mark.parametrize("declared", [{"dtype": None}, {"shape": None}, {"dtype": "object"}])
def test_an_array_needs_dtype_and_shape(toy: Path, declared: dict[str, Any]) -> None:
    replace_array(toy, "popularity.npy", np.arange(4, dtype=np.int32), **declared)
    with pytest.raises(MalformedManifest, match="popularity"):
        open_bundle(toy)


def test_a_manifest_too_long_to_be_one(toy: Path) -> None:
    (toy / "manifest.json").write_bytes(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(MalformedManifest, match="longer"):
        open_bundle(toy)


def write_raw(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    files = json.loads((bundle / "manifest.json").read_bytes())["files"]
    files[name].update(bytes=len(content), sha256=sha256_of(bundle / name))
    edit_manifest(bundle, files=files)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


def pickled_array() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([Bomb()], dtype=object), version=(1, 0), allow_pickle=True)
    return stream.getvalue()


def header(text: str) -> bytes:
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an array",
        pickle.dumps(Bomb()),
        pickled_array(),
        header("{'descr': '>i4', 'fortran_order': False, 'shape': (4,)}") + bytes(16),
        header("{'descr': '<i4', 'fortran_order': True, 'shape': (4,)}") + bytes(16),
        header("{'descr': '<i4', 'fortran_order': False, 'shape': (-4,)}") + bytes(16),
        header("{'descr': '<i4', 'fortran_order': False}") + bytes(16),
        header("__import__('os').abort()"),
    ],
)
def test_what_is_no_array_file_is_refused_and_never_unpickled(toy: Path, content: bytes) -> None:
    write_raw(toy, "popularity.npy", content)
    with pytest.raises(MalformedArray, match="popularity"):
        open_bundle(toy)


def test_a_header_that_claims_more_than_the_world_holds(toy: Path) -> None:
    content = header("{'descr': '<i4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}")
    write_raw(toy, "popularity.npy", content + bytes(16))
    with pytest.raises(SizeMismatch, match="popularity"):
        open_bundle(toy)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("seen_indices.npy", [1, 2, 4]),
        ("seen_indices.npy", [1, 2, -1]),
        ("heldout_indices.npy", [0, 4]),
        ("popularity.npy", [0, 1, 2, 4]),
        ("item_categories_indices.npy", [0, 1, 1, 3]),
    ],
)
def test_rows_out_of_range(toy: Path, name: str, values: list[int]) -> None:
    replace_array(toy, name, np.asarray(values, np.int32))
    with pytest.raises(RowOutOfRange, match=name):
        open_bundle(toy, verify=False)


@pytest.mark.parametrize("values", [[0, 2, 1, 3], [1, 1, 2, 3], [0, 1, 2, 2]])
def test_an_indptr_that_does_not_rise_to_the_end(toy: Path, values: list[int]) -> None:
    replace_array(toy, "seen_indptr.npy", np.asarray(values, np.int64))
    with pytest.raises(MalformedArray, match="seen_indptr"):
        open_bundle(toy, verify=False)


def test_popularity_without_one_of_the_items(toy: Path) -> None:
    replace_array(toy, "popularity.npy", np.array([0, 1, 1, 2], np.int32))
    with pytest.raises(MalformedArray, match="popularity"):
        open_bundle(toy, verify=False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite(toy: Path, value: float) -> None:
    replace_array(toy, "item_embeddings.npy", np.full((4, 4), value, np.float32))
    with pytest.raises(MalformedArray, match="NaN"):
        open_bundle(toy)


def test_ids_that_are_not_unique(toy: Path) -> None:
    replace_array(toy, "item_ids.bytes.npy", np.frombuffer(b"i0i1i2i2", np.uint8))
    with pytest.raises(DuplicateIds, match="'i2'"):
        open_bundle(toy)


def with_answers() -> BundleContents:
    rows = np.array([[0, 2, 3], [1, 0, 3], [2, 0, -1]])
    return replace(toy_contents(), answer_rows=rows, answer_scores=np.array([[1, 0, 0]] * 3, dtype=np.float32))


@pytest.fixture
def answered(tmp_path: Path) -> Path:
    """The toy bundle with an answer table, to be spoilt."""
    write_toy(tmp_path / "answered", with_answers())
    return tmp_path / "answered"


def test_an_answer_table_is_read_and_counted(answered: Path, toy: Path) -> None:
    bundle = open_bundle(answered)
    assert bundle.answer_rows is not None
    assert bundle.answer_scores is not None
    assert bundle.answer_rows.tolist() == [[0, 2, 3], [1, 0, 3], [2, 0, -1]]
    assert bundle.answer_scores[:, 0].tolist() == [1, 1, 1]
    assert bundle.manifest.answer_table == 3
    assert bundle.manifest.files["answer_rows.npy"].shape == (3, 3)
    plain = open_bundle(toy)
    assert (plain.answer_rows, plain.answer_scores, plain.manifest.answer_table) == (None, None, 0)


@pytest.mark.parametrize("name", ["answer_rows.npy", "answer_scores.npy"])
def test_half_an_answer_table(answered: Path, name: str) -> None:
    files = json.loads((answered / "manifest.json").read_bytes())["files"]
    del files[name]
    edit_manifest(answered, files=files)
    with pytest.raises(MissingFile, match=name):
        open_bundle(answered, verify=False)


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("answer_rows.npy", np.zeros((3, 3), np.int64), DtypeMismatch),
        ("answer_scores.npy", np.zeros((3, 3), np.float16), DtypeMismatch),
        ("answer_rows.npy", np.zeros((2, 3), np.int32), ShapeMismatch),
        ("answer_rows.npy", np.zeros((3, 0), np.int32), ShapeMismatch),
        ("answer_rows.npy", np.zeros(3, np.int32), ShapeMismatch),
        ("answer_scores.npy", np.zeros((3, 2), np.float32), ShapeMismatch),
        ("answer_rows.npy", np.full((3, 3), 4, np.int32), RowOutOfRange),
        ("answer_rows.npy", np.full((3, 3), -2, np.int32), RowOutOfRange),
        ("answer_rows.npy", np.array([[0, -1, 3]] * 3, np.int32), MalformedArray),
        ("answer_scores.npy", np.array([[0, 0, 1]] * 3, np.float32), MalformedArray),
        ("answer_scores.npy", np.full((3, 3), np.nan, np.float32), MalformedArray),
    ],
)
def test_an_answer_table_that_is_wrong(answered: Path, name: str, values: Array, error: type[BundleError]) -> None:
    replace_array(answered, name, values)
    with pytest.raises(error, match="answer_"):
        open_bundle(answered)


def test_a_small_bundle_may_be_read_into_memory(toy: Path) -> None:
    size = sum(entry.bytes for entry in open_bundle(toy).manifest.files.values())
    mapped, copied = open_bundle(toy, copy_up_to=size - 1), open_bundle(toy, copy_up_to=size)
    assert (mapped.in_memory, copied.in_memory) == (False, True)
    assert isinstance(mapped.user_embeddings, np.memmap)
    assert not isinstance(copied.user_embeddings, np.memmap)
    assert not copied.user_embeddings.flags.writeable
    assert copied.user_embeddings.tolist() == mapped.user_embeddings.tolist()
    assert [copied.item_ids.get(row) for row in range(len(copied.item_ids))] == [
        mapped.item_ids.get(row) for row in range(len(mapped.item_ids))
    ]


TABLE = np.arange(16, dtype=np.float32).reshape(4, 4)


def test_a_fold_in_table_makes_the_second_schema(tmp_path: Path) -> None:
    assert write_toy(tmp_path / "1").schema_version == 1
    assert open_bundle(tmp_path / "1").fold_in_embeddings is None
    assert write_toy(tmp_path / "2", replace(toy_contents(), fold_in_embeddings=TABLE)).schema_version == 2
    np.testing.assert_array_equal(open_bundle(tmp_path / "2").fold_in_embeddings, TABLE)


def test_the_second_schema_needs_its_table(toy: Path) -> None:
    edit_manifest(toy, schema_version=2)
    with pytest.raises(MissingFile, match="fold_in_embeddings"):
        open_bundle(toy)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        (TABLE[:3], ShapeMismatch),
        (TABLE.astype(np.int32), DtypeMismatch),
        (np.full_like(TABLE, np.nan), MalformedArray),
    ],
)
def test_a_fold_in_table_that_does_not_fit(tmp_path: Path, table: Array, error: type[BundleError]) -> None:
    write_toy(tmp_path / "1", replace(toy_contents(), fold_in_embeddings=TABLE))
    replace_array(tmp_path / "1", "fold_in_embeddings.npy", table)
    with pytest.raises(error, match="fold_in_embeddings"):
        open_bundle(tmp_path / "1")
