"""A model repository in a directory: `<root>/<model>/<version>/` bundles and `<root>/<model>/labels.json`."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from export.bundle.errors import BundleExists, RepositoryError, UnknownModel
from export.bundle.manifest import MANIFEST_FILE, Manifest
from export.bundle.reader import open_bundle, open_manifest
from export.bundle.versions import (
    LABELS_FILE,
    Repository,
    Signature,
    encode_labels,
    is_model,
    is_version,
    parse_labels,
    require_model,
)
from export.bundle.writer import BundleContents, copy_bundle, flush, open_unverified, write_bundle

TRIES = 5
"""Of a number, which others may take before a rename does."""
_SHARD = re.compile(r"shard-(0|[1-9][0-9]{0,3})-of-[1-9][0-9]{0,3}")


class ModelRepository(Repository):
    """The bundles under one root directory.

    Args:
        root: The repository's directory; made when the first bundle is published.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def place(self) -> str:
        """The directory."""
        return str(self.root)

    def models(self) -> list[str]:
        """Names of the models that have a version, sorted."""
        if not self.root.is_dir():
            return []
        names = (path.name for path in self.root.iterdir() if path.is_dir() and is_model(path.name))
        return sorted(name for name in names if _versions_in(self.root / name))

    def versions(self, model: str) -> list[str]:
        """Versions of `model`, oldest first.

        Raises:
            UnknownModel: No such model.
        """
        versions = _versions_in(self._directory(model))
        if not versions:
            known = ", ".join(self.models()) or "none"
            folders = shard_folders(self.root, model)
            inside = f", but in {', '.join(path.name for path in folders[:3])}…: give one of these" if folders else ""
            raise UnknownModel(f"{self.root}: no model {model!r}{inside}; there are: {known}")
        return versions

    def labels(self, model: str) -> dict[str, str]:
        """Label → version.

        Raises:
            UnknownModel: No such model.
            RepositoryError: labels.json is unreadable.
        """
        self.versions(model)
        path = self._directory(model) / LABELS_FILE
        try:
            return parse_labels(path.read_bytes(), str(path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RepositoryError(f"{path}: unreadable ({error}); remove it and set the labels again") from error

    def fetch(self, model: str, version: str) -> Path:
        """The directory of a version."""
        return self._directory(model) / version

    def manifest(self, model: str, version: str) -> Manifest:
        """What a version says of itself; raises as `open_bundle`."""
        return open_bundle(self.fetch(model, version), verify=False).manifest

    def signature(self, model: str, versions: Collection[str]) -> Signature:
        """Names, sizes and times of change of what is there of a model; a directory that is not there holds nothing."""
        found = set()
        for directory in (self.root / model, *(self.root / model / version for version in versions)):
            for path in sorted(directory.glob("*")):
                try:
                    status = path.stat()
                except OSError:
                    continue
                found.add((str(path), status.st_size, str(status.st_mtime_ns)))
        return frozenset(found)

    def reserve(self, model: str, version: str = "", label: str | None = None) -> Path:
        """Where a new bundle may stand; see `Repository.reserve`.

        Raises:
            RepositoryError: As there, or the model is there in shards, with labels of their own.
        """
        target = super().reserve(model, version, label)
        if folders := shard_folders(self.root, model):
            raise RepositoryError(
                f"{folders[0]}: holds a share of the users of {model}, whose labels would no longer be those of one"
                " model; give --user-shards, another --repository, or another --model"
            )
        return target

    def publish(
        self,
        manifest: Manifest,
        contents: BundleContents,
        write_graphs: Callable[[Path], None],
        check: Callable[[Path], object] = open_unverified,
        label: str | None = None,
    ) -> Path:
        """Write a bundle, or leave nothing of it; see `Repository.publish`."""
        target = self.reserve(manifest.model.name, manifest.model.version, label)
        manifest = manifest.named(manifest.model.name, target.name)
        write_bundle(target, manifest, contents, write_graphs, check)
        if label is not None:
            try:
                self.set_label(manifest.model.name, label, target.name, verify=False)
            except RepositoryError:
                remove_version(target)
                raise
        return target

    def add(self, bundle: Path, model: str) -> str:
        """Move a bundle here, or copy it from another file system; see `Repository.add`."""
        manifest = open_manifest(bundle)
        for _ in range(TRIES):
            target = self.reserve(model)
            named = manifest.named(model, target.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if on_one_disk(bundle, target.parent):
                    write_file(bundle / MANIFEST_FILE, named.to_bytes())
                    bundle.rename(target)
                    flush([target.parent])
                else:
                    copy_bundle(bundle, target, named)
            except OSError:
                if not target.exists():
                    raise
            else:
                return target.name
        raise BundleExists(f"{target}: others publish there faster than this one; try again")

    def _has(self, model: str, version: str) -> bool:
        return version in _versions_in(self._directory(model))

    def _numbers(self, model: str) -> list[int]:
        return [int(version) for version in _versions_in(self._directory(model))]

    def _directory(self, model: str) -> Path:
        return self.root / require_model(model)

    def _open(self, model: str, version: str, *, verify: bool) -> None:
        open_bundle(self.fetch(model, version), verify=verify)

    def _change_labels(self, model: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        directory = self._directory(model)
        with locked(directory):
            _write_labels(directory, change(self.labels(model)))


def on_one_disk(one: Path, other: Path) -> bool:
    """Whether a rename can lead from one directory to the other."""
    return one.stat().st_dev == other.stat().st_dev


def remove_version(bundle: Path) -> None:
    """Take a version away that nobody has been told of."""
    # Under a name that is no version: nobody sees a bundle of which half is gone.
    shutil.rmtree(bundle.rename(bundle.with_name(f".{bundle.name}.unlabelled")), ignore_errors=True)


def shard_folders(root: Path, model: str = "") -> list[Path]:
    """Folders of a repository that hold shards of `model`, or of any, by number; each is a repository of its own."""
    folders = [path for path in root.glob("shard-*-of-*") if _SHARD.fullmatch(path.name) and path.is_dir()]
    found = [path for path in folders if not model or _versions_in(path / model)]
    return sorted(found, key=lambda path: [int(number) for number in path.name.split("-")[3::-2]])


def _write_labels(directory: Path, labels: Mapping[str, str]) -> None:
    for left in directory.glob(f".{LABELS_FILE}.*.draft"):  # of a process that was killed: this one is alone
        left.unlink(missing_ok=True)
    try:
        write_file(directory / LABELS_FILE, encode_labels(labels))
    except OSError as error:
        raise RepositoryError(
            f"{directory / LABELS_FILE}: cannot be written ({error.strerror}) and stays as it was;"
            " free space there and try again"
        ) from error


def _versions_in(directory: Path) -> list[str]:
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir() if path.is_dir())
    return sorted((name for name in names if is_version(name)), key=int)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory against other processes that want to change what is in it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    `distill.storage` does the same for runs; what `serve` imports may not import `distill`.

    Args:
        path: In a directory that exists.
        content: All of it.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".draft")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o644)
        draft.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
