"""A version in shards: together they are the whole; all are published or none; a label moves for all or for none."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import (
    Bundle,
    BundleContents,
    BundleExists,
    CannotWriteBundle,
    ExportError,
    ForeignUser,
    MalformedManifest,
    ModelRepository,
    RepositoryError,
    ShardedRepository,
    UnknownModel,
    UserShard,
    WrongAnswer,
    open_bundle,
    shard_of,
)
from export.bundle.opening import find_bundles, open_shards
from export.bundle.repository import shard_folders
from export.bundle.versions import LABELS_FILE
from export.bundle.writer import OF_USERS
from tests.export.toy import toy_contents, toy_manifest, write_placeholders

SHARDS = 4
NOTHING_OF_USERS = {"item_ids.slots.npy", "popularity.npy", "item_titles.bytes.npy", "index.faiss", "fold_in.onnx"}


def many_users(users: int = 60) -> BundleContents:
    rng = np.random.default_rng(7)
    toy = toy_contents()
    lengths = rng.integers(0, 4, size=users)
    heldout = rng.integers(0, 2, size=users)
    return replace(
        toy,
        user_ids=[f"u{row}" for row in range(users)],
        user_embeddings=rng.normal(size=(users, 4)).astype(np.float32),
        seen_indptr=np.concatenate([[0], np.cumsum(lengths)]),
        seen_indices=np.concatenate([np.sort(rng.choice(4, length, replace=False)) for length in lengths]),
        heldout_indptr=np.concatenate([[0], np.cumsum(heldout)]),
        heldout_indices=rng.integers(0, 4, size=int(heldout.sum())),
        answer_rows=rng.integers(0, 4, size=(users, 1)),
        answer_scores=rng.normal(size=(users, 1)).astype(np.float32),
    )


def write_missing(draft: Path) -> None:
    """As `publish_version` does: what is there is another shard's."""
    if (draft / "index.faiss").exists():
        (draft / "recommend.onnx").write_bytes(b"placeholder")
    else:
        write_placeholders(draft)


def publish(repository: ShardedRepository, label: str | None = None, version: str = "") -> list[Path]:
    path = repository.publish(toy_manifest("toy", version), many_users(), write_missing, label=label)
    return repository.bundles("toy", path.name)


@pytest.fixture
def repository(tmp_path: Path) -> ShardedRepository:
    return ShardedRepository(tmp_path / "models", SHARDS)


def rows_of(bundle: Bundle, user_id: str) -> tuple[Any, ...]:
    row = bundle.user_ids.index_of(user_id)
    assert bundle.heldout_indptr is not None
    assert bundle.heldout_indices is not None
    assert bundle.answer_rows is not None
    assert bundle.answer_scores is not None
    heldout = bundle.heldout_indices[bundle.heldout_indptr[row] : bundle.heldout_indptr[row + 1]]
    return (
        bundle.user_embeddings[row].tolist(),
        bundle.seen(row).tolist(),
        heldout.tolist(),
        bundle.answer_rows[row].tolist(),
        bundle.answer_scores[row].tolist(),
    )


def test_the_shards_together_are_the_whole(repository: ShardedRepository, tmp_path: Path) -> None:
    contents = many_users()
    whole = open_bundle(
        ModelRepository(tmp_path / "whole").publish(toy_manifest("toy", ""), contents, write_placeholders)
    )
    bundles = [open_bundle(path, verify=True) for path in publish(repository)]
    assert sorted(id_ for bundle in bundles for id_ in bundle.user_ids.take(range(len(bundle.user_ids)))) == sorted(
        contents.user_ids
    )
    for user_id in contents.user_ids:
        assert rows_of(bundles[shard_of(user_id, SHARDS)], user_id) == rows_of(whole, user_id)
        assert bundles[shard_of(user_id, SHARDS)].recommend(user_id, 3) == whole.recommend(user_id, 3)
    for number, bundle in enumerate(bundles):
        manifest = bundle.manifest
        assert manifest.user_shard == UserShard(number, SHARDS)
        assert manifest.quality == whole.manifest.quality
        assert (manifest.model.version, manifest.counts["items"]) == ("1", 4)
    assert sum(bundle.manifest.counts["seen"] for bundle in bundles) == whole.manifest.counts["seen"]
    assert whole.manifest.user_shard is None
    assert len({bundle.manifest.bundle_id for bundle in bundles}) == SHARDS
    assert len({bundle.manifest.items_id for bundle in bundles}) == 1, "one collection of an engine serves them all"


def test_the_files_of_the_items_are_on_the_disk_once(repository: ShardedRepository) -> None:
    paths = publish(repository)
    shared = {path.name for path in paths[0].iterdir() if path.stat().st_nlink == SHARDS}
    assert shared >= NOTHING_OF_USERS
    assert not any(name.startswith(OF_USERS) for name in shared)
    vectors = [path / "item_embeddings.npy" for path in paths]
    assert [path.stat().st_nlink for path in vectors] == [1] * SHARDS, "ONNX refuses weights with several names"
    assert len({path.read_bytes() for path in vectors}) == 1
    for path in paths[1:]:
        assert {other.name for other in path.iterdir() if other.samefile(paths[0] / other.name)} == shared


def test_where_there_are_no_hard_links_they_are_copied(
    repository: ShardedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    paths = publish(repository)
    assert (paths[3] / "index.faiss").stat().st_nlink == 1
    assert (paths[3] / "index.faiss").read_bytes() == (paths[0] / "index.faiss").read_bytes()
    for path in paths:
        open_bundle(path, verify=True)


def test_a_version_is_free_in_all_shards(repository: ShardedRepository) -> None:
    assert [path.name for path in publish(repository)] == ["1"] * SHARDS
    (repository.root / "shard-2-of-4" / "toy" / "5").mkdir()
    assert [path.name for path in publish(repository)] == ["6"] * SHARDS
    with pytest.raises(BundleExists, match="shard-2-of-4/toy/5"):
        repository.reserve("toy", "5")


@pytest.mark.parametrize("shards", [1, 5000])
def test_a_number_of_shards_that_is_none(tmp_path: Path, shards: int) -> None:
    with pytest.raises(ExportError, match=f"user_shards {shards}"):
        ShardedRepository(tmp_path, shards)


def test_a_shard_without_a_user_is_refused(tmp_path: Path) -> None:
    repository = ShardedRepository(tmp_path / "models", 64)
    with pytest.raises(ExportError, match="none of 60 users; give fewer"):
        repository.publish(toy_manifest("toy", ""), many_users(), write_missing)
    assert not (tmp_path / "models").exists()


def test_a_name_that_reads_as_a_version_is_refused(repository: ShardedRepository) -> None:
    with pytest.raises(RepositoryError, match="a number would read as a version"):
        repository.reserve("7")


def held(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_shard_that_does_not_verify_leaves_no_shard(repository: ShardedRepository) -> None:
    def check(draft: Path) -> None:
        if "shard-3" in str(draft):
            raise WrongAnswer("not as it should be")

    before = held(repository.root)
    with pytest.raises(WrongAnswer):
        repository.publish(toy_manifest("toy", ""), many_users(), write_missing, check, "stable")
    assert held(repository.root) == before


def test_a_shard_that_cannot_be_put_in_place_leaves_no_shard(
    repository: ShardedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == repository.root / "shard-2-of-4" / "toy" / "1":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CannotWriteBundle, match="No space left"):
        publish(repository, "stable")
    assert held(repository.root) == []


def labels(repository: ShardedRepository) -> list[dict[str, str]]:
    return [shard.labels("toy") for shard in repository.shards]


def test_labels_move_and_roll_back_in_all(repository: ShardedRepository) -> None:
    publish(repository, "stable")
    publish(repository, "stable")
    assert labels(repository) == [{"stable": "2", "previous": "1"}] * SHARDS
    repository.rollback("toy")
    assert labels(repository) == [{"stable": "1", "previous": "2"}] * SHARDS


def refuse_labels_of(monkeypatch: pytest.MonkeyPatch, *refused: tuple[str, int]) -> None:
    """Let writes of labels.json fail: a shard's folder, and from which write of it on."""
    from export.bundle import repository

    write, times = repository.write_file, dict.fromkeys((folder for folder, _ in refused), 0)

    def fail(path: Path, content: bytes) -> None:
        folder = path.parent.parent.name
        if folder in times:
            times[folder] += 1
            if times[folder] >= dict(refused)[folder]:
                raise OSError(errno.EROFS, "Read-only file system")
        write(path, content)

    monkeypatch.setattr(repository, "write_file", fail)


def test_a_label_that_one_shard_refuses_stays_in_all(
    repository: ShardedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository, "stable")
    publish(repository)
    refuse_labels_of(monkeypatch, ("shard-2-of-4", 1))
    with pytest.raises(RepositoryError, match="'stable' is where it was in all 4 shards"):
        repository.set_label("toy", "stable", "2")
    assert labels(repository) == [{"stable": "1"}] * SHARDS


def test_shards_that_cannot_be_put_back_are_named(
    repository: ShardedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository, "stable")
    publish(repository)
    refuse_labels_of(monkeypatch, ("shard-0-of-4", 2), ("shard-2-of-4", 1))
    with pytest.raises(RepositoryError, match="'stable' has moved in shards 0 and could not be put back: set it again"):
        repository.set_label("toy", "stable", "2")
    assert [each["stable"] for each in labels(repository)] == ["2", "1", "1", "1"]
    monkeypatch.undo()
    repository.set_label("toy", "stable", "2")
    assert [each["stable"] for each in labels(repository)] == ["2"] * SHARDS


def test_a_version_whose_label_is_refused_is_taken_back(
    repository: ShardedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_labels_of(monkeypatch, ("shard-3-of-4", 1))
    with pytest.raises(RepositoryError, match="shard-3-of-4"):
        publish(repository, "stable")
    assert [shard.models() for shard in repository.shards] == [[]] * SHARDS


def test_one_bad_shard_moves_no_label(repository: ShardedRepository) -> None:
    publish(repository, "stable")
    paths = publish(repository)
    (paths[3] / "recommend.onnx").write_bytes(b"placeholdeR")
    with pytest.raises(Exception, match="shard-3-of-4"):
        repository.set_label("toy", "stable", "2")
    assert labels(repository) == [{"stable": "1"}] * SHARDS


def test_a_label_that_differs_between_shards_names_no_version(repository: ShardedRepository) -> None:
    publish(repository, "stable")
    publish(repository)
    repository.shards[1].set_label("toy", "stable", "2")
    with pytest.raises(RepositoryError, match="'stable' of toy is version 1 here and 2 there"):
        repository.set_label("toy", "canary", "stable")


def test_verify_says_that_labels_differ_between_shards(repository: ShardedRepository) -> None:
    publish(repository, "stable")
    publish(repository)
    repository.shards[1].set_label("toy", "stable", "2")
    with pytest.raises(RepositoryError, match="what is served of toy is version 1 here and 2 there"):
        find_bundles("toy", repository.root)


def test_a_bundle_in_the_folder_of_another_shard_is_named(repository: ShardedRepository) -> None:
    publish(repository, "stable")
    first, second = (path.parent.parent for path in publish(repository)[:2])
    shutil.rmtree(first / "toy" / "2")
    shutil.copytree(second / "toy" / "2", first / "toy" / "2")
    with pytest.raises(RepositoryError, match=r"shard-0-of-4/toy/2: is shard 1 of 4, and stands in shard-0-of-4; copy"):
        find_bundles("toy:2", repository.root)
    with pytest.raises(RepositoryError, match="stands in shard-0-of-4"):
        repository.set_label("toy", "stable", "2")
    assert labels(repository) == [{"stable": "1"}] * SHARDS


def test_a_bundle_of_all_users_is_no_shard(repository: ShardedRepository, tmp_path: Path) -> None:
    first = publish(repository)[0]
    whole = ModelRepository(tmp_path / "whole").publish(toy_manifest("toy", "1"), many_users(), write_placeholders)
    shutil.rmtree(first)
    shutil.copytree(whole, first)
    with pytest.raises(RepositoryError, match="has all users, and stands in shard-0-of-4"):
        repository.bundles("toy", "1")


def test_a_shard_that_is_missing_is_named(repository: ShardedRepository) -> None:
    publish(repository)
    shutil.move(repository.root / "shard-2-of-4", repository.root / "shard-7-of-4")
    with pytest.raises(RepositoryError, match=r"not all shards of one number \(shard-2-of-4 is missing\)"):
        open_shards(repository.root, "toy")


def test_a_model_is_there_whole_or_in_shards(repository: ShardedRepository) -> None:
    """Labels of one would move, and those of the other stay."""
    publish(repository)
    whole = ModelRepository(repository.root)
    with pytest.raises(RepositoryError, match="shard-0-of-4: holds a share of the users of toy"):
        whole.publish(toy_manifest("toy", ""), many_users(), write_placeholders)
    whole.publish(toy_manifest("other", ""), many_users(), write_placeholders)
    with pytest.raises(RepositoryError, match="other: holds all users of other"):
        repository.reserve("other")


def test_what_a_root_holds_is_found(repository: ShardedRepository) -> None:
    publish(repository)
    root = repository.root
    found = open_shards(root, "toy")
    assert isinstance(found, ShardedRepository)
    assert len(found.shards) == SHARDS
    assert [path.name for path in shard_folders(root, "toy")] == [f"shard-{number}-of-4" for number in range(4)]
    assert [path.parent.parent.name for path in find_bundles("toy:1", root)] == [f"shard-{n}-of-4" for n in range(4)]
    assert isinstance(open_shards(root, "other"), ModelRepository)
    with pytest.raises(UnknownModel, match="but in shard-0-of-4, shard-1-of-4, shard-2-of-4…: give one of these"):
        ModelRepository(root).resolve("toy")
    publish(ShardedRepository(root, 2))
    with pytest.raises(RepositoryError, match="not all shards of one number"):
        open_shards(root, "toy")


def spoil(path: Path, **shard: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["user_shard"] = shard
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_user_of_another_shard_is_found_when_verified(repository: ShardedRepository) -> None:
    path = publish(repository)[1]
    spoil(path, shard=2, of=4)
    open_bundle(path, verify=False)
    with pytest.raises(ForeignUser, match="belongs to shard 1 of 4, and this is shard 2"):
        open_bundle(path, verify=True)


@pytest.mark.parametrize("shard", [{"shard": 4, "of": 4}, {"shard": 0, "of": 1}, {"shard": -1, "of": 2}, {"of": 4}])
def test_a_shard_that_cannot_be(repository: ShardedRepository, shard: dict[str, int]) -> None:
    path = publish(repository)[0]
    spoil(path, **shard)
    with pytest.raises(MalformedManifest, match="user_shard"):
        open_bundle(path)


def test_killed_labels_are_made_whole_by_the_next_move(repository: ShardedRepository) -> None:
    publish(repository, "stable")
    publish(repository)
    repository.shards[0].set_label("toy", "stable", "2")  # and then it was killed
    repository.set_label("toy", "stable", "2")
    assert [each["stable"] for each in labels(repository)] == ["2"] * SHARDS
    assert all((shard.root / "toy" / LABELS_FILE).exists() for shard in repository.shards)
