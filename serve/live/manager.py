"""Which models are live: loading, labels, rollback, and following the repository. Nothing here is on the query path.

A new version is opened, verified, built and warmed while the old one answers; only then one assignment makes it live.
The old one is dropped from the table and freed when the last request that holds it ends.
Whatever goes wrong before that assignment leaves what is served as it was. While following the repository, what could
not be loaded is tried again at once when its files have changed, else ever more rarely (`LoadBackoff`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep

from export.bundle import BundleError, RepositoryError, StoreError, UnknownLabel, UnknownModel, UnknownVersion
from export.bundle.versions import PREVIOUS, STABLE, Repository, Signature
from serve.answers.errors import (
    FieldViolation,
    InvalidRequest,
    ModelInUse,
    ModelUnusable,
    NotInRepository,
    StartupError,
    VersionNotServed,
)
from serve.live.engines import Engines
from serve.live.loader import STOP_SECONDS, BackgroundLoader, choose_models
from serve.live.split import Split
from serve.live.store import ModelStore, ServedModel, VersionState
from serve.telemetry.metrics import Metrics

LOG = logging.getLogger("lowpass.serve")
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Between the first two tries, and at most, in seconds; the pause doubles."""

Look = Callable[[], Signature]


@dataclass(frozen=True)
class _Failure:
    seen: Signature
    pause: float
    retry_at: float


class LoadBackoff:
    """Remembers what failed, by model.

    Args:
        clock: Monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, _Failure] = {}

    def allows(self, name: str, look: Look) -> bool:
        """Whether to try a model now.

        Args:
            name: The model's.
            look: Says what decides over it, labels and bundles that are to be served; asked only after a failure.
        """
        failure = self._failures.get(name)
        return failure is None or self._clock() >= failure.retry_at or look() != failure.seen

    def failed(self, name: str, look: Look) -> None:
        """Take note of a failure."""
        before, seen = self._failures.get(name), look()
        again = before is not None and before.seen == seen
        pause = min(2 * before.pause, LONGEST_PAUSE) if before is not None and again else FIRST_PAUSE
        self._failures[name] = _Failure(seen, pause, self._clock() + pause)

    def succeeded(self, name: str) -> None:
        """Forget what was."""
        self._failures.pop(name, None)


class ModelManager:
    """Changes what a store serves, one change at a time.

    Args:
        choices: What to serve from the start; a choice without a revision follows `stable`.
        metrics: Where loads are counted.
        verify: Read every byte of a bundle before serving it.
        copy_up_to: A bundle of at most so many bytes is read into memory; a larger one is mapped.
        engines: That hold items of models; None for none.
        prepare_thread: Called once in the loading thread.
        backoff: Says when `refresh` tries again what failed.
    """

    def __init__(
        self,
        repository: Repository,
        choices: Sequence[str],
        store: ModelStore,
        metrics: Metrics,
        *,
        verify: bool = True,
        copy_up_to: int = 0,
        engines: Engines | None = None,
        prepare_thread: Callable[[], None] | None = None,
        backoff: LoadBackoff | None = None,
    ) -> None:
        self._repository = repository
        self._wanted = choices
        self._store = store
        self._metrics = metrics
        self._verify = verify
        self._backoff = backoff or LoadBackoff()
        self._loader = BackgroundLoader(
            metrics, verify=verify, copy_up_to=copy_up_to, engines=engines, prepare_thread=prepare_thread
        )
        self._changing = threading.RLock()
        self._live: dict[str, list[str | None]] = {}
        self._gives_way = self._is_stale = False
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Load what was chosen.

        Raises:
            StartupError: There is nothing to serve, or a bundle cannot answer.
            BundleError: The repository or a bundle is wrong.
        """
        for choice in choose_models(self._repository, self._wanted):
            self._live.setdefault(choice.name, []).append(choice.revision)
        for name in self._live:
            try:
                self._bring_up(name)
            except (BundleError, StartupError, OSError) as error:
                if not self._bring_up_last_good(name, error):
                    raise
        self._say_if_stale()

    def give_way(self) -> None:
        """From now on requests are answered beside loads, which give way to them."""
        self._gives_way = True

    def watch(self, period: float) -> None:
        """Follow the repository: look for moved labels and new versions every `period` seconds."""

        def follow() -> None:
            while not self._stopping.wait(period):
                self.refresh()

        self._watcher = threading.Thread(target=follow, name="lowpass-watch", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Follow and load nothing more."""
        self._stopping.set()
        self._repository.close()
        if self._watcher is not None:
            self._watcher.join(STOP_SECONDS)
        self._loader.stop()

    def refresh(self) -> None:
        """Serve what the repository says now; a model that cannot be is left as it is, with a metric and a log line.

        What failed is tried again when its files, or what is named, have changed; else ever more rarely.
        """
        with self._changing:
            for name in self._live:
                look = partial(self._look, name)
                if not self._backoff.allows(name, look):
                    continue
                try:
                    self._bring_up(name)
                except (BundleError, StartupError, OSError) as error:
                    if not isinstance(error, StoreError):  # which says nothing of the bundle: asked again next time
                        self._backoff.failed(name, look)
                    LOG.error("model left as it is", extra={"fields": {"model": name, "error": str(error)}})
                else:
                    self._backoff.succeeded(name)
            self._say_if_stale()

    def load(self, name: str, revision: str = "") -> ServedModel:
        """Serve one more version until it is unloaded, or what one more label names, whatever that is.

        Args:
            name: The model's.
            revision: A version or a label; empty for `stable` or, without one, the newest.

        Raises:
            NotInRepository: There is no such bundle.
            ModelUnusable: It is wrong.
        """
        with self._changing, _as_request_errors(f"{name}:{revision}".rstrip(":")):
            version = self._repository.version_of(name, revision or None)
            self._load(name, version)
            self._keep(name, revision or None)
            self._bring_up(name)
            return self._store.versions(name).versions[version]

    def unload(self, name: str, version: str, timeout: float) -> bool:
        """Serve a version no longer.

        Args:
            name: The model's.
            version: One that does not answer by default.
            timeout: How long to wait for requests that hold it, in seconds.

        Returns:
            Whether they all ended in time; they are answered either way.

        Raises:
            ModelNotServed: Nothing is loaded under this name.
            VersionNotServed: This version is not.
            ModelInUse: It answers by default.
        """
        with self._changing:
            entry = self._store.versions(name)
            if version not in entry.versions:
                raise VersionNotServed(version)
            if version == entry.default:
                raise ModelInUse(name, version)
            self._live[name] = [each for each in self._live[name] if self._named(name, each) != version]
            model = self._drop(name, version)
        give_up = monotonic() + timeout
        while model.leases and monotonic() < give_up:
            sleep(0.005)
        return model.leases == 0

    def set_label(self, name: str, label: str, revision: str) -> None:
        """Load a version if need be, then move a label to it, on disk and here.

        Raises:
            NotInRepository: There is no such bundle.
            ModelUnusable: It is wrong, or the label is.
        """
        with self._changing, _as_request_errors(f"{name}:{revision}"):
            version = self._repository.version_of(name, revision)
            is_verified = self._load(name, version) and self._verify
            self._repository.set_label(name, label, version, verify=not is_verified)
            self._keep(name, label)
            self._bring_up(name)

    def set_split(self, name: str, shares: Mapping[str, float]) -> None:
        """Let labels of a model answer a share of its requests; load what they name first.

        Raises:
            ModelNotServed: Nothing is loaded under this name.
            InvalidRequest: A share is out of range, or a label does not exist.
            ModelUnusable: A bundle is wrong.
        """
        split = Split(shares)
        with self._changing, _as_request_errors(name):
            self._store.versions(name)
            labels = self._repository.labels(name)
            for label in shares:
                if label not in labels:
                    known = ", ".join(sorted(labels)) or "none"
                    raise InvalidRequest(FieldViolation("shares", f"no label {label!r}; there are: {known}"))
                self._load(name, labels[label])
            self._store.split(name, split)
            self._bring_up(name)

    def split(self, name: str) -> Split:
        """The split in effect; an empty one where there is none, or nothing is loaded under this name."""
        entry = self._store.get(name)
        return entry.split if entry is not None else Split()

    def rollback(self, name: str) -> None:
        """Move `stable` back to `previous`, which becomes what `stable` was.

        Raises:
            NotInRepository: There is no previous version.
            ModelUnusable: Its bundle is wrong.
        """
        self.set_label(name, STABLE, PREVIOUS)

    def states(self, name: str = "") -> list[VersionState]:
        """Every version in the repository or loaded.

        Args:
            name: Of one model; empty for all.

        Raises:
            ModelUnusable: The repository is wrong.
        """
        with _as_request_errors(name or "models"):
            known = dict.fromkeys([*self._repository.models(), *(model.summary.name for model in self._store.models)])
            return [state for each in ([name] if name else known) for state in self._states(each)]

    def _named(self, name: str, revision: str | None) -> str:
        """The version that a revision names; empty where it names none any more."""
        try:
            return self._repository.version_of(name, revision)
        except RepositoryError:
            return ""

    def _look(self, name: str) -> Signature:
        named = (self._named(name, revision) for revision in self._live[name])
        return self._repository.signature(name, [version for version in named if version])

    def _say_if_stale(self) -> None:
        """Count each look at a repository that is out of reach; a line in the log at its begin and its end."""
        why = self._repository.stale
        for name in self._live if why else ():
            self._metrics.load_failed(name)
        fields = {"repository": self._repository.place}
        if why and not self._is_stale:
            LOG.error("repository out of reach, serving from its mirror", extra={"fields": {**fields, "error": why}})
        elif self._is_stale and not why:
            LOG.info("repository within reach again", extra={"fields": fields})
        self._is_stale = bool(why)

    def _bring_up_last_good(self, name: str, error: Exception) -> bool:
        """Serve what was served last from a repository that has a mirror, where what it names now cannot be."""
        mirror = self._repository.last_good
        if mirror is None or name not in mirror.models():
            return False
        try:
            self._bring_up(name, mirror)
        except (BundleError, StartupError, OSError):
            return False
        fields = {"model": name, "version": self._store.versions(name).default, "error": str(error)}
        LOG.error("serving the last good version from the mirror", extra={"fields": fields})
        return True

    def _states(self, name: str) -> Iterator[VersionState]:
        entry = self._store.get(name)
        loaded = dict(entry.versions) if entry is not None else {}
        if entry is not None and name not in self._repository.models():
            labels, on_disk = dict(entry.labels), []
        else:
            labels, on_disk = self._repository.labels(name), self._repository.versions(name)
        for version in [*on_disk, *(version for version in loaded if version not in on_disk)]:
            named = tuple(sorted(label for label, at in labels.items() if at == version))
            is_default = entry is not None and entry.default == version
            error = self._loader.errors.get((name, version), "")
            yield VersionState(name, version, named, is_default, loaded.get(version), error)

    def _keep(self, name: str, revision: str | None) -> None:
        """Serve what `revision` names from now on; the first one of a model answers by default."""
        live = self._live.setdefault(name, [])
        if revision not in live and not (revision == STABLE and None in live):
            live.append(revision)

    def _bring_up(self, name: str, repository: Repository | None = None) -> None:
        """Load what is to be live of a model, make it live in one step, and drop what is not any more."""
        source = repository or self._repository
        labels = source.labels(name)
        versions = [source.version_of(name, revision) for revision in self._live[name]]
        entry = self._store.get(name)
        if entry is not None:
            versions += [labels[label] for label in entry.split.shares if label in labels]
        for version in dict.fromkeys(versions):
            self._load(name, version, source)
        self._store.point(name, labels, versions[0])
        for version in self._store.versions(name).versions:
            if version not in versions:
                self._drop(name, version)
        source.settle(name, labels, versions)

    def _load(self, name: str, version: str, repository: Repository | None = None) -> bool:
        """Load a version unless it is loaded; returns whether it was not."""
        entry = self._store.get(name)
        if entry is not None and version in entry.versions:
            return False
        recorded = list(entry.versions[entry.default].recorded) if entry is not None else []
        try:
            path = (repository or self._repository).fetch(name, version)
        except (BundleError, OSError) as error:
            self._loader.failed(name, version, error)
            raise
        self._store.add(self._loader.load(name, path, recorded, beside_requests=self._gives_way))
        return True

    def _drop(self, name: str, version: str) -> ServedModel:
        model = self._store.remove(name, version)
        self._metrics.model_unloaded(model.summary)
        LOG.info("model unloaded", extra={"fields": {"model": name, "version": version, "leases": model.leases}})
        return model


@contextmanager
def _as_request_errors(wanted: str) -> Iterator[None]:
    """Say what is wrong with a bundle in words of a request."""
    try:
        yield
    except (UnknownModel, UnknownVersion, UnknownLabel) as error:
        raise NotInRepository(wanted) from error
    except (BundleError, RepositoryError, StartupError, OSError) as error:
        raise ModelUnusable(str(error)) from error
