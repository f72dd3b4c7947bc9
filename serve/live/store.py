"""The models a server answers from: found by name, version or label, split by user, and leased while in use."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from serve.answers.errors import LabelNotServed, ModelNotServed, VersionNotServed
from serve.answers.recommender import Recommender
from serve.answers.types import ModelSummary, Query
from serve.live.split import Split

RECORDED_QUERIES = 64


class ServedModel:
    """One loaded version of a model; a context manager that holds it while a request uses it.

    Args:
        summary: What is known about it.
        load_seconds: How long it took from opening to warm.

    Attributes:
        recorded: The latest questions it was asked, to warm its successor with.
    """

    def __init__(self, summary: ModelSummary, recommender: Recommender, load_seconds: float = 0.0) -> None:
        self.summary = summary
        self.recommender = recommender
        self.load_seconds = load_seconds
        self.recorded: deque[Query] = deque(maxlen=RECORDED_QUERIES)
        self._leases = 0
        self._lock = threading.Lock()

    @property
    def leases(self) -> int:
        """Requests that use it now."""
        return self._leases

    def __enter__(self) -> Self:
        with self._lock:
            self._leases += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._leases -= 1


@dataclass(frozen=True)
class ModelVersions:
    """The loaded versions of one model; replaced whole, never changed.

    Attributes:
        versions: Version → model, in the order they were loaded.
        labels: Label → version, also of versions that are not loaded.
        default: The version that answers where a request names neither version nor label.
        split: What else may answer such a request.
    """

    versions: Mapping[str, ServedModel]
    labels: Mapping[str, str] = field(default_factory=dict)
    default: str = ""
    split: Split = field(default_factory=Split)

    def labels_of(self, version: str) -> tuple[str, ...]:
        """Labels that name a version, sorted."""
        return tuple(sorted(label for label, at in self.labels.items() if at == version))

    def labelled(self, label: str) -> ServedModel | None:
        """The model a label names, if it is loaded."""
        return self.versions.get(self.labels.get(label, ""))

    def choose(self, key: str) -> ServedModel:
        """The model for a request without version and label; an arm that is not loaded falls to the default."""
        label = self.split.arm(key) if self.split else None
        found = self.labelled(label) if label is not None else None
        return found or self.versions[self.default]


@dataclass(frozen=True)
class VersionState:
    """A version of a model, as List shows it.

    Attributes:
        version: In the repository, or loaded and gone from there.
        labels: That name it.
        is_default: Whether it answers requests that name neither version nor label.
        model: Where it is loaded.
        error: Why its latest load failed; empty where it did not.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    is_default: bool
    model: ServedModel | None
    error: str


class ModelStore:
    """All models. Reading needs no lock: the table is replaced, never changed. The first model is the default one."""

    def __init__(self) -> None:
        self._table: dict[str, ModelVersions] = {}
        self._writing = threading.Lock()

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """All that are loaded, the default model and each model's default version first."""
        return tuple(
            model
            for entry in self._table.values()
            for model in sorted(entry.versions.values(), key=lambda model: model.summary.version != entry.default)
        )

    def versions(self, name: str) -> ModelVersions:
        """What is loaded of one model.

        Raises:
            ModelNotServed: Nothing.
        """
        entry = self.get(name)
        if entry is None:
            raise ModelNotServed(name)
        return entry

    def get(self, name: str) -> ModelVersions | None:
        """What is loaded of one model; None where nothing is."""
        return self._table.get(name)

    def add(self, model: ServedModel) -> None:
        """Serve one more version; the first of a model is its default."""
        name, version = model.summary.name, model.summary.version
        with self._writing:
            entry = self._table.get(name) or ModelVersions({}, default=version)
            self._put(name, replace(entry, versions={**entry.versions, version: model}))

    def remove(self, name: str, version: str) -> ServedModel:
        """Serve a version no longer; requests that hold it go on.

        Raises:
            ModelNotServed: Nothing is loaded under this name.
            VersionNotServed: This version is not.
        """
        with self._writing:
            entry = self.versions(name)
            if version not in entry.versions:
                raise VersionNotServed(version)
            rest = {key: model for key, model in entry.versions.items() if key != version}
            self._put(name, replace(entry, versions=rest))
            return entry.versions[version]

    def point(self, name: str, labels: Mapping[str, str], default: str = "") -> None:
        """Set all labels of a model, and the version that answers by default (empty: as it is), in one step.

        Raises:
            ModelNotServed: Nothing is loaded under this name.
            VersionNotServed: The default is not loaded.
        """
        with self._writing:
            entry = self.versions(name)
            default = default or entry.default
            if default not in entry.versions:
                raise VersionNotServed(default)
            self._put(name, replace(entry, labels=dict(labels), default=default))

    def split(self, name: str, split: Split) -> None:
        """Set which labels also answer requests that name neither version nor label.

        Raises:
            ModelNotServed: Nothing is loaded under this name.
        """
        with self._writing:
            self._put(name, replace(self.versions(name), split=split))

    def find(self, name: str = "", version: str = "", label: str = "", key: str = "") -> ServedModel:
        """The model a request names; enter it as a context manager to use it.

        Args:
            name: Empty for the default model.
            version: Exact version; empty for any.
            label: A label; empty for any.
            key: Who asks; decides between the arms of a split.

        Raises:
            ModelNotServed: No such name.
            VersionNotServed: Not this version of it.
            LabelNotServed: Not this label of it.
        """
        table = self._table
        entry = table.get(name) if name else next(iter(table.values()), None)
        if entry is None:
            raise ModelNotServed(name)
        if version:
            found = entry.versions.get(version)
            if found is None:
                raise VersionNotServed(version)
            return found
        if label:
            found = entry.labelled(label)
            if found is None:
                raise LabelNotServed(label)
            return found
        return entry.choose(key)

    def _put(self, name: str, entry: ModelVersions) -> None:
        table = {**self._table, name: entry}
        self._table = table if entry.versions else {key: value for key, value in table.items() if key != name}
