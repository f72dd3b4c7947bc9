"""Models, versions and labels: the rules of a repository, wherever it is kept.

Versions are positive integers, written as text. Labels are lower-case words that point to a version; `stable`
is what is served by default, and moving it leaves `previous` where it was, so a rollback is one move back.
A label may point only to a bundle that opens and verifies. Names that begin with a dot are drafts, not seen.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from export.bundle.errors import BundleExists, RepositoryError, UnknownLabel, UnknownModel, UnknownVersion
from export.bundle.manifest import Manifest
from export.bundle.writer import BundleContents

LABELS_FILE = "labels.json"
STABLE, PREVIOUS = "stable", "previous"

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,63}")

Signature = frozenset[tuple[str, int, str]]
"""Names, lengths and marks of change of what a version is made of."""


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
        """Where a new bundle may stand; see `Repository.reserve`."""
        ...

    def publish(
        self,
        manifest: Manifest,
        contents: BundleContents,
        write_graphs: Callable[[Path], None],
        check: Callable[[Path], object] = ...,
        label: str | None = None,
    ) -> Path:
        """Write a bundle; see `Repository.publish`."""
        ...


class Repository(ABC):
    """Bundles by model and version, and labels.

    Attributes:
        stale: Why what was read last may be old; empty where it is what the repository says now.
    """

    stale = ""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, for messages."""

    @property
    def last_good(self) -> Repository | None:
        """What was served last from here, on this machine's disk; None where nothing keeps that."""
        return None

    @abstractmethod
    def models(self) -> list[str]:
        """Names of the models that have a version, sorted."""

    @abstractmethod
    def versions(self, model: str) -> list[str]:
        """Versions of `model`, oldest first.

        Raises:
            UnknownModel: No such model.
        """

    @abstractmethod
    def labels(self, model: str) -> dict[str, str]:
        """Label → version.

        Raises:
            UnknownModel: No such model.
            RepositoryError: They are unreadable.
        """

    @abstractmethod
    def fetch(self, model: str, version: str) -> Path:
        """The directory of a version on this machine, brought there if need be.

        Raises:
            BundleError: What was brought is not what its manifest says.
        """

    @abstractmethod
    def manifest(self, model: str, version: str) -> Manifest:
        """What a version says of itself; its files are looked at, but not every byte of them is read.

        Raises:
            BundleError: It does not open.
        """

    @abstractmethod
    def signature(self, model: str, versions: Collection[str]) -> Signature:
        """What changes when the labels of a model, or the files of some of its versions, do."""

    @abstractmethod
    def publish(
        self,
        manifest: Manifest,
        contents: BundleContents,
        write_graphs: Callable[[Path], None],
        check: Callable[[Path], object] = ...,
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
            The bundle's directory on this machine.

        Raises:
            RepositoryError: A name is not allowed, or the label cannot be written.
            BundleError: The bundle cannot be written.
        """

    @abstractmethod
    def add(self, bundle: Path, model: str) -> str:
        """Make a bundle that was written elsewhere the next version of a model, without a label, or leave none of it.

        Args:
            bundle: Its directory, of which nobody else knows: it may be moved.
            model: Name of the model; it and the version are written into the manifest.

        Returns:
            The version.

        Raises:
            RepositoryError: The name is not allowed, or others took every number that was tried.
            BundleError: The copy does not verify.
        """

    @abstractmethod
    def _has(self, model: str, version: str) -> bool:
        """Whether a version is there whole."""

    @abstractmethod
    def _numbers(self, model: str) -> list[int]:
        """Version numbers that are taken, also by what is not whole."""

    @abstractmethod
    def _directory(self, model: str) -> Path:
        """Where the versions of a model are, or come, on this machine."""

    @abstractmethod
    def _open(self, model: str, version: str, *, verify: bool) -> None:
        """Open a bundle that a label is to point to; raises where it must not."""

    @abstractmethod
    def _change_labels(self, model: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Replace the labels of a model by what becomes of them, in one step that no other change comes between."""

    def address(self, model: str, version: str) -> str:
        """Where a version is, for messages."""
        return f"{self.place}/{model}/{version}"

    def settle(self, model: str, labels: Mapping[str, str], versions: Collection[str]) -> None:  # noqa: B027  # most need nothing
        """Hear that versions of a model are served, under these labels; what nobody needs may go."""

    def close(self) -> None:  # noqa: B027  # a directory has nothing to close
        """Bring nothing more; what is under way ends."""

    def overview(self, model: str | None = None) -> list[ModelVersions]:
        """Versions and labels of `model`, or of every model by name.

        Raises:
            UnknownModel: No such model.
            RepositoryError: The labels are unreadable.
        """
        return [
            ModelVersions(name, self.versions(name), self.labels(name))
            for name in ([model] if model else self.models())
        ]

    def version_of(self, model: str, version_or_label: str | None = None) -> str:
        """Find a version.

        Args:
            model: Model name.
            version_or_label: A version, a label, or None for `stable` or, without one, the newest version.

        Raises:
            UnknownModel: No such model.
            UnknownVersion: No such version, or the label points to a version that is gone.
            UnknownLabel: No such label.
        """
        wanted = version_or_label
        if wanted is None:
            wanted = self.labels(model).get(STABLE) or self.versions(model)[-1]
        elif not _VERSION.fullmatch(wanted):
            labels = self.labels(model)
            if wanted not in labels:
                known = ", ".join(labels) or "none"
                raise UnknownLabel(f"{self.place}/{model}: no label {wanted!r}; there are: {known}")
            wanted = labels[wanted]
        if not self._has(model, wanted):
            known = ", ".join(self.versions(model))
            raise UnknownVersion(f"{self.place}/{model}: no version {wanted}; there are: {known}")
        return wanted

    def resolve(self, model: str, version_or_label: str | None = None) -> Path:
        """Find a bundle's directory on this machine; raises as `version_of` and `fetch`."""
        return self.fetch(model, self.version_of(model, version_or_label))

    def next_version(self, model: str) -> str:
        """The first version number after those that are taken."""
        require_model(model)
        return str(max(self._numbers(model), default=0) + 1)

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
        require_label(label)
        number = self.version_of(model, version)
        self._open(model, number, verify=verify)
        self._change_labels(model, partial(_moved, label=label, version=number))

    def replace_labels(self, model: str, labels: Mapping[str, str]) -> None:
        """Set all labels of `model` as they once were; what they point to is not looked at.

        Raises:
            RepositoryError: They cannot be written.
        """
        self._change_labels(model, lambda _: dict(labels))

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
            RepositoryError: A name is not allowed.
            BundleExists: The version is taken.
        """
        if label is not None:
            require_label(label)
        if not version:
            return self._directory(model) / self.next_version(model)
        if not _VERSION.fullmatch(version):
            raise RepositoryError(f"version {version!r}: must be a positive integer; leave it out for the next one")
        if int(version) in self._numbers(model):
            raise BundleExists(
                f"{self.address(model, version)}: exists and bundles are immutable; give another version"
            )
        return self._directory(model) / version


def is_model(name: str) -> bool:
    """Whether a word may name a model."""
    return _MODEL.fullmatch(name) is not None


def is_version(name: str) -> bool:
    """Whether a word is a version."""
    return _VERSION.fullmatch(name) is not None


def require_model(name: str) -> str:
    """The name of a model.

    Raises:
        UnknownModel: It cannot be one.
    """
    if not is_model(name):
        raise UnknownModel(f"model {name!r}: names are letters, digits, '.', '_' and '-', at most 128")
    return name


def require_label(label: str) -> None:
    """Check a label.

    Raises:
        RepositoryError: It cannot be one.
    """
    if not _LABEL.fullmatch(label):
        raise RepositoryError(f"label {label!r}: must be a lower-case word such as 'stable' or 'canary'")


def encode_labels(labels: Mapping[str, str]) -> bytes:
    """`labels.json`."""
    return (json.dumps(labels, indent=2, sort_keys=True) + "\n").encode()


def parse_labels(content: bytes, where: str) -> dict[str, str]:
    """Read `labels.json`.

    Raises:
        RepositoryError: It is not that.
    """
    try:
        labels = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RepositoryError(f"{where}: unreadable ({error}); remove it and set the labels again") from error
    if not isinstance(labels, dict) or not all(
        _LABEL.fullmatch(label) and isinstance(version, str) and is_version(version)
        for label, version in labels.items()
    ):
        raise RepositoryError(f"{where}: must map labels to versions; remove it and set the labels again")
    return labels


def _moved(labels: Mapping[str, str], label: str, version: str) -> dict[str, str]:
    changed = dict(labels)
    before = changed.get(STABLE)
    if label == STABLE and before not in (None, version):
        changed[PREVIOUS] = str(before)
    changed[label] = version
    return changed
