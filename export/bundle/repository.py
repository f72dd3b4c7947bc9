"""A model repository: `<root>/<model>/<version>/` bundles and `<root>/<model>/labels.json`.

Versions are positive integers, written as text. Labels are lower-case words that point to a version; `stable`
is what is served by default, and moving it leaves `previous` where it was, so a rollback is one move back.
A label may point only to a bundle that opens and verifies. Names that begin with a dot are drafts, not seen.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from export.bundle.errors import BundleExists, NotABundle, RepositoryError, UnknownLabel, UnknownModel, UnknownVersion
from export.bundle.manifest import MANIFEST_FILE, Manifest
from export.bundle.reader import open_bundle
from export.bundle.writer import BundleContents, open_unverified, write_bundle

LABELS_FILE = "labels.json"
STABLE, PREVIOUS = "stable", "previous"

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SHARD = re.compile(r"shard-(0|[1-9][0-9]{0,3})-of-[1-9][0-9]{0,3}")


@dataclass(frozen=True)
class ModelVersions:
    """What a repository holds of a model.

    Attributes:
        model: Name of the model.
        versions: Its versions, oldest first.
        labels: Label → version.
    """

    model: str
    versions: list[str]
    labels: dict[str, str]


class Publisher(Protocol):
    """Where new versions are put: one place, or a place for each shard of the users."""

    def reserve(self, model: str, version: str = "", label: str | None = None) -> Path:
        """Where a new bundle may stand; see `ModelRepository.reserve`."""
        ...

    def publish(
        self,
        manifest: Manifest,
        contents: BundleContents,
        write_graphs: Callable[[Path], None],
        check: Callable[[Path], object] = ...,
        label: str | None = None,
    ) -> Path:
        """Write a bundle; see `ModelRepository.publish`."""
        ...


class ModelRepository:
    """The bundles under one root directory.

    Args:
        root: The repository's directory; made when the first bundle is published.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[str]:
        """Names of the models that have a version, sorted."""
        if not self.root.is_dir():
            return []
        names = (path.name for path in self.root.iterdir() if path.is_dir() and _MODEL.fullmatch(path.name))
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
            labels = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise RepositoryError(f"{path}: unreadable ({error}); remove it and set the labels again") from error
        if not isinstance(labels, dict) or not all(
            _LABEL.fullmatch(label) and isinstance(version, str) and _VERSION.fullmatch(version)
            for label, version in labels.items()
        ):
            raise RepositoryError(f"{path}: must map labels to versions; remove it and set the labels again")
        return labels

    def overview(self, model: str | None = None) -> list[ModelVersions]:
        """Versions and labels of `model`, or of every model by name.

        Raises:
            UnknownModel: No such model.
            RepositoryError: labels.json is unreadable.
        """
        return [
            ModelVersions(name, self.versions(name), self.labels(name))
            for name in ([model] if model else self.models())
        ]

    def resolve(self, model: str, version_or_label: str | None = None) -> Path:
        """Find a bundle.

        Args:
            model: Model name.
            version_or_label: A version, a label, or None for `stable` or, without one, the newest version.

        Returns:
            The bundle's directory.

        Raises:
            UnknownModel: No such model.
            UnknownVersion: No such version, or the label points to a version that is gone.
            UnknownLabel: No such label.
        """
        versions = self.versions(model)
        wanted = version_or_label
        if wanted is None:
            wanted = self.labels(model).get(STABLE, versions[-1])
        elif not _VERSION.fullmatch(wanted):
            labels = self.labels(model)
            if wanted not in labels:
                known = ", ".join(labels) or "none"
                raise UnknownLabel(f"{self._directory(model)}: no label {wanted!r}; there are: {known}")
            wanted = labels[wanted]
        if wanted not in versions:
            raise UnknownVersion(f"{self._directory(model)}: no version {wanted}; there are: {', '.join(versions)}")
        return self._directory(model) / wanted

    def next_version(self, model: str) -> str:
        """The first version number after those there are."""
        versions = _versions_in(self._directory(model))
        return str(int(versions[-1]) + 1) if versions else "1"

    def set_label(self, model: str, label: str, version: str, *, verify: bool = True) -> None:
        """Point `label` to `version` in one atomic step; moving `stable` leaves `previous` where it was.

        Args:
            model: Name of the model.
            label: A lower-case word.
            version: A version, or another label, of the model.
            verify: Read every byte of the bundle first; False where the caller has just done so.

        Raises:
            RepositoryError: Not a label, or no such version.
            BundleError: The bundle does not verify.
        """
        _require_label(label)
        path = self.resolve(model, version)
        open_bundle(path, verify=verify)
        directory = self._directory(model)
        with _locked(directory):
            labels = self.labels(model)
            before = labels.get(STABLE)
            if label == STABLE and before not in (None, path.name):
                labels[PREVIOUS] = str(before)
            labels[label] = path.name
            _write_labels(directory, labels)

    def replace_labels(self, model: str, labels: Mapping[str, str]) -> None:
        """Set all labels of `model` as they once were; what they point to is not looked at.

        Raises:
            RepositoryError: They cannot be written.
        """
        directory = self._directory(model)
        with _locked(directory):
            _write_labels(directory, labels)

    def rollback(self, model: str) -> None:
        """Move `stable` back to `previous`, which becomes what `stable` was.

        Raises:
            UnknownLabel: There is no `previous`.
            BundleError: Its bundle does not verify.
        """
        self.set_label(model, STABLE, PREVIOUS)

    def reserve(self, model: str, version: str = "", label: str | None = None) -> Path:
        """Where a new bundle may stand; ask before long work, so that a bad name is refused at once.

        Args:
            model: Name of the model.
            version: A version; empty for the next free one.
            label: A label that is to point to it, or None.

        Returns:
            The directory, which does not exist yet.

        Raises:
            RepositoryError: A name is not allowed, or the model is there in shards, with labels of their own.
            BundleExists: The version is taken.
        """
        if label is not None:
            _require_label(label)
        version = version or self.next_version(model)
        if not _VERSION.fullmatch(version):
            raise RepositoryError(f"version {version!r}: must be a positive integer; leave it out for the next one")
        target = self._directory(model) / version
        if folders := shard_folders(self.root, model):
            raise RepositoryError(
                f"{folders[0]}: holds a share of the users of {model}, whose labels would no longer be those of one"
                " model; give --user-shards, another --repository, or another --model"
            )
        if target.exists():
            raise BundleExists(f"{target}: exists and bundles are immutable; give another version")
        return target

    def publish(
        self,
        manifest: Manifest,
        contents: BundleContents,
        write_graphs: Callable[[Path], None],
        check: Callable[[Path], object] = open_unverified,
        label: str | None = None,
    ) -> Path:
        """Write a bundle as `manifest.model.name`, version `manifest.model.version`, or leave nothing of it.

        Args:
            manifest: Its cards; an empty version means the next free one.
            contents: Ids and arrays.
            write_graphs: Writes the index and the graphs into the draft (see `write_bundle`).
            check: Raises where the draft must not become a bundle.
            label: A label to point to it, or None.

        Returns:
            The bundle's directory.

        Raises:
            RepositoryError: A name is not allowed, or the label cannot be written.
            BundleError: The bundle cannot be written.
        """
        target = self.reserve(manifest.model.name, manifest.model.version, label)
        manifest = replace(manifest, model=replace(manifest.model, version=target.name))
        write_bundle(target, manifest, contents, write_graphs, check)
        if label is not None:
            try:
                self.set_label(manifest.model.name, label, target.name, verify=False)
            except RepositoryError:
                remove_version(target)
                raise
        return target

    def _directory(self, model: str) -> Path:
        if not _MODEL.fullmatch(model):
            raise UnknownModel(f"model {model!r}: names are letters, digits, '.', '_' and '-', at most 128")
        return self.root / model


def find_bundle(name: str, repository: Path | None = None) -> Path:
    """Find a bundle by its name in a repository, or by its path.

    Args:
        name: `MODEL`, `MODEL:VERSION` or `MODEL:LABEL` of the repository; without one, a bundle's directory.
        repository: Root of the repository, or None.

    Raises:
        NotABundle: No bundle at the path.
        RepositoryError: No such model, version or label.
    """
    if repository is not None:
        model, _, revision = name.partition(":")
        return ModelRepository(repository).resolve(model, revision or None)
    if not (Path(name) / MANIFEST_FILE).is_file():
        raise NotABundle(f"{name}: no {MANIFEST_FILE} there; give a bundle's directory, or --repository and a model")
    return Path(name)


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
    text = json.dumps(labels, indent=2, sort_keys=True) + "\n"
    for left in directory.glob(f".{LABELS_FILE}.*.draft"):  # of a process that was killed: this one is alone
        left.unlink(missing_ok=True)
    try:
        write_file(directory / LABELS_FILE, text.encode())
    except OSError as error:
        raise RepositoryError(
            f"{directory / LABELS_FILE}: cannot be written ({error.strerror}) and stays as it was;"
            " free space there and try again"
        ) from error


def _require_label(label: str) -> None:
    if not _LABEL.fullmatch(label):
        raise RepositoryError(f"label {label!r}: must be a lower-case word such as 'stable' or 'canary'")


def _versions_in(directory: Path) -> list[str]:
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir() if path.is_dir())
    return sorted((name for name in names if _VERSION.fullmatch(name)), key=int)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
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
