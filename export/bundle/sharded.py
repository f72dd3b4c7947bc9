"""A repository whose users are spread over N shards: `<root>/shard-K-of-N/` is a model repository for each.

All shards have the same models and versions. A shard's folder is all that its servers need, and what works on a
repository works on it; what must happen to all shards together happens here. Each bundle has all items, in files that
are the same ones on disk (hard links), and its share of the users.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.bundle.errors import CannotWriteBundle, ExportError, RepositoryError
from export.bundle.manifest import Manifest
from export.bundle.reader import open_bundle, open_manifest
from export.bundle.repository import ModelRepository, remove_version
from export.bundle.shard import MAXIMUM_SHARDS, UserShard, shard_of
from export.bundle.versions import PREVIOUS, STABLE
from export.bundle.writer import BundleContents, flush, open_draft, open_unverified, write_bundle


class ShardedRepository:
    """The shards under one root directory.

    Args:
        root: Where their folders are; made when the first version is published.
        shards: N, how many there are.

    Attributes:
        shards: A repository each, by number.

    Raises:
        ExportError: N is out of range.
    """

    def __init__(self, root: Path, shards: int) -> None:
        if not 2 <= shards <= MAXIMUM_SHARDS:
            raise ExportError(f"user_shards {shards}: must be from 2 to {MAXIMUM_SHARDS}")
        self.root = root
        self._places = [UserShard(number, shards) for number in range(shards)]
        self.shards = [ModelRepository(root / place.folder) for place in self._places]

    def reserve(self, model: str, version: str = "", label: str | None = None) -> Path:
        """Where the first shard of a new version may stand; as `ModelRepository.reserve`, for all shards."""
        return self._reserve_all(model, version, label)[0]

    def publish(
        self,
        manifest: Manifest,
        contents: BundleContents,
        write_graphs: Callable[[Path], None],
        check: Callable[[Path], object] = open_unverified,
        label: str | None = None,
    ) -> Path:
        """Write a version in all shards, or leave nothing of it.

        What says nothing of users is written once. Each shard gets its bundle when all are written and checked. Whoever
        is killed in between leaves a version in some, to which no label points; the next one has another number.

        Args:
            manifest: Its cards; an empty version means the next that is free in all shards.
            contents: Ids and arrays, of all users.
            write_graphs: As for `write_bundle`.
            check: Raises where a shard's draft must not become a bundle.
            label: A label to point to it in all shards, or None.

        Returns:
            The directory of the first shard's bundle; `bundles` has all.

        Raises:
            ExportError: A shard would have no user.
            RepositoryError: A name is not allowed, or a label cannot be written.
            BundleError: A bundle cannot be written.
        """
        name = manifest.model.name
        targets = self._reserve_all(name, manifest.model.version, label)
        version = targets[0].name
        manifest = manifest.named(name, version)
        parts = split_users(contents, len(self.shards))
        try:
            with self._draft(version) as draft:
                drafts: list[Path] = []
                for place, part in zip(self._places, parts, strict=True):
                    of_shard, first = replace(manifest, user_shard=place), drafts[0] if drafts else None
                    write_bundle(draft / place.folder, of_shard, part, write_graphs, check, first)
                    drafts.append(draft / place.folder)
                _move_all(drafts, targets)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CannotWriteBundle(
                f"{self.root}: version {version} of {name} cannot be written ({reason}) and nothing is left of it;"
                " free space there and try again"
            ) from error
        if label is not None:
            try:
                self.set_label(name, label, version, verify=False)
            except RepositoryError:
                for target in targets:
                    remove_version(target)
                raise
        return targets[0]

    def bundles(self, model: str, version: str | None) -> list[Path]:
        """The bundles of a version, by shard.

        Raises:
            RepositoryError: As `ModelRepository.resolve`, or a label names other versions in other shards, or a bundle
                is of another shard than its folder: all of its users would be sought elsewhere.
            BundleError: A manifest is unreadable.
        """
        bundles = [shard.resolve(model, version) for shard in self.shards]
        if len(versions := {path.name for path in bundles}) > 1:
            what = f"{version!r}" if version else "what is served"
            raise RepositoryError(
                f"{self.root}: {what} of {model} is version {' here and '.join(sorted(versions, key=int))} there;"
                " give a version that all shards have"
            )
        for place, path in zip(self._places, bundles, strict=True):
            if (own := open_manifest(path).user_shard) != place:
                has = f"is {own}" if own else "has all users"
                raise RepositoryError(
                    f"{path}: {has}, and stands in {place.folder}; copy that shard's own bundle there"
                )
        return bundles

    def set_label(self, model: str, label: str, version: str, *, verify: bool = True) -> None:
        """Point `label` to `version` in all shards, or in none.

        Args:
            model: Name of the model.
            label: A lower-case word.
            version: A version, or a label that points to the same version in all shards.
            verify: Read every byte of the bundles first.

        Raises:
            RepositoryError: As `bundles`, or not a label, or a shard's labels cannot be written: which, and what
                became of the others.
            BundleError: A bundle does not verify.
        """
        bundles = self.bundles(model, version)
        for path in bundles:
            open_bundle(path, verify=verify)
        before = [shard.labels(model) for shard in self.shards]
        for number, shard in enumerate(self.shards):
            try:
                shard.set_label(model, label, bundles[0].name, verify=False)
            except RepositoryError as error:
                raise RepositoryError(f"{error}; {self._put_back(model, label, before[:number])}") from error

    def rollback(self, model: str) -> None:
        """Move `stable` back to `previous` in all shards; raises as `set_label`."""
        self.set_label(model, STABLE, PREVIOUS)

    def _put_back(self, model: str, label: str, before: Sequence[dict[str, str]]) -> str:
        stuck = []
        for number, labels in enumerate(before):
            try:
                self.shards[number].replace_labels(model, labels)
            except RepositoryError:
                stuck.append(str(number))
        if not stuck:
            return f"{label!r} is where it was in all {len(self.shards)} shards"
        return f"{label!r} has moved in shards {', '.join(stuck)} and could not be put back: set it again"

    @contextmanager
    def _draft(self, version: str) -> Iterator[Path]:
        self.root.mkdir(parents=True, exist_ok=True)
        draft, lock = open_draft(self.root / version)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(lock)

    def _reserve_all(self, model: str, version: str, label: str | None) -> list[Path]:
        if model.isdecimal():
            raise RepositoryError(f"model {model!r}: in shards, a number would read as a version; give another name")
        if model in ModelRepository(self.root).models():
            raise RepositoryError(
                f"{self.root / model}: holds all users of {model}, whose labels would no longer be those of one model;"
                " give its shards another --repository, or another --model"
            )
        version = version or str(max(int(shard.next_version(model)) for shard in self.shards))
        return [shard.reserve(model, version, label) for shard in self.shards]


def split_users(contents: BundleContents, shards: int) -> Iterator[BundleContents]:
    """Yield the contents of each shard's bundle: all items, and the users whose shard it is, in the same order.

    Raises:
        ExportError: A shard has no user; at once, before any is yielded.
    """
    homes = np.fromiter((shard_of(id_, shards) for id_ in contents.user_ids), np.int64, len(contents.user_ids))
    sizes = np.bincount(homes, minlength=shards)
    if not sizes.all():
        raise ExportError(
            f"user_shards {shards}: shard {int(np.argmin(sizes))} would have none of {len(homes)} users; give fewer"
        )
    return (_take_users(contents, np.flatnonzero(homes == number)) for number in range(shards))


def _take_users(contents: BundleContents, rows: npt.NDArray[np.int64]) -> BundleContents:
    changes: dict[str, object] = {"user_ids": [contents.user_ids[row] for row in rows.tolist()]}
    for name in ("user_embeddings", "answer_rows", "answer_scores"):
        array = getattr(contents, name)
        changes[name] = None if array is None else array[rows]
    for name in ("seen", "heldout"):
        indptr, indices = getattr(contents, f"{name}_indptr"), getattr(contents, f"{name}_indices")
        if indptr is not None:
            changes[f"{name}_indptr"], changes[f"{name}_indices"] = _take_rows(indptr, indices, rows)
    return replace(contents, **changes)  # type: ignore[arg-type]


def _take_rows(
    indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.integer], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.integer]]:
    begins = np.asarray(indptr, dtype=np.int64)
    lengths = np.diff(begins)[rows]
    taken = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    places = np.arange(taken[-1]) + np.repeat(begins[rows] - taken[:-1], lengths)
    return taken, indices[places]


def _move_all(drafts: Sequence[Path], targets: Sequence[Path]) -> None:
    moved: list[Path] = []
    try:
        for draft, target in zip(drafts, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(target)
            moved.append(target)
            flush([target.parent])
    except BaseException:
        for target in moved:
            remove_version(target)
        raise
