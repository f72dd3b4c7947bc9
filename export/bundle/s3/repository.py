"""A model repository in an object store: published manifest last, read by way of a mirror."""

from __future__ import annotations

import json
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from export.bundle.errors import (
    BundleExists,
    NotABundle,
    RepositoryError,
    StoreError,
    UnknownModel,
    UnknownVersion,
)
from export.bundle.manifest import MANIFEST_FILE, MAXIMUM_MANIFEST_BYTES, Manifest, parse_manifest
from export.bundle.reader import open_bundle, open_manifest
from export.bundle.repository import ModelRepository
from export.bundle.s3.address import S3Address
from export.bundle.s3.mirror import Mirror, default_mirror, is_whole
from export.bundle.s3.objects import Content, Objects, StoredObject, read_endpoint
from export.bundle.s3.transfer import Say, bring, check_lengths, send
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
from export.bundle.writer import BundleContents, copy_bundle, open_unverified, write_bundle

CLAIM_FILE = ".claim"
"""No name that a manifest may list."""
MAXIMUM_LABELS_BYTES = 1024 * 1024
ABANDONED = timedelta(days=1)
"""What has got no file for so long is no upload that still goes on."""
SILENT_SECONDS = 3.0
"""Who serves does not ask a store again sooner that has just not answered: each try takes its time."""
TRIES = 20
"""Of a change of labels, or of a number, that others change too."""

T = TypeVar("T")


def open_s3(address: S3Address, mirror: Path | None, *, spare: int, serves: bool, say: Say) -> S3Repository:
    """Open a repository in an object store; see `export.bundle.opening.open_repository`."""
    kept = Mirror(mirror or default_mirror(address, read_endpoint()), str(address), spare)
    if serves:
        kept.prepare()
    return S3Repository(Objects(address), kept, serves=serves, say=say)


class S3Repository(Repository):
    """The bundles below an address.

    Args:
        objects: Of that address.
        mirror: Of this repository.
        serves: Read from the mirror where the store does not answer.
        say: Told what was found half done, and how far a transfer is.
    """

    def __init__(self, objects: Objects, mirror: Mirror, *, serves: bool = False, say: Say = lambda _: None) -> None:
        self._objects = objects
        self._mirror = mirror
        self._serves = serves
        self._say = say
        self._labels: dict[str, Content] = {}
        self._silent_until = 0.0

    @property
    def place(self) -> str:
        """The address."""
        return str(self._objects.address)

    @property
    def last_good(self) -> ModelRepository:
        """The mirror, with the labels under which something was last served from it."""
        return self._mirror.local

    def models(self) -> list[str]:
        """Names of the models that have a version, sorted; raises `StoreError`."""

        def ask() -> list[str]:
            return [name for name in sorted(self._objects.folders()) if is_model(name) and self._whole(name)]

        return self._or_mirrored(ask, self._mirror.local.models)

    def versions(self, model: str) -> list[str]:
        """Versions of `model`, oldest first.

        Raises:
            UnknownModel: No such model.
            StoreError: The store does not answer, or refuses.
        """

        def ask() -> list[str]:
            versions = self._whole(require_model(model))
            if not versions:
                raise UnknownModel(f"{self.place}: no model {model!r}; there are: {', '.join(self.models()) or 'none'}")
            return versions

        return self._or_mirrored(ask, lambda: self._mirror.local.versions(model))

    def labels(self, model: str) -> dict[str, str]:
        """Label → version; where they did not change since they were last asked for, the store only says so.

        Raises:
            UnknownModel: No such model.
            RepositoryError: They are unreadable.
            StoreError: The store does not answer, or refuses.
        """
        require_model(model)
        content = self._or_mirrored(lambda: self._read_labels(model), lambda: None)
        if self.stale:
            return self._mirror.local.labels(model)
        if content is None:
            self.versions(model)
            return {}
        return parse_labels(content.data, f"{self.place}/{model}/{LABELS_FILE}")

    def fetch(self, model: str, version: str) -> Path:
        """The directory of a version in the mirror, verified by its manifest's checksums.

        Raises:
            UnknownVersion: There is no manifest, so no such version.
            BundleError: What is there is not what the manifest says.
            StoreError: The store does not answer, or refuses.
        """
        try:
            content = self._ask(lambda: self._manifest_bytes(model, version))
        except StoreError:
            if not self._serves or not self._mirrored_whole(model, version):
                raise
            self._mirror.hold(model, version)
            return self._mirror.path(model, version)
        prefix = f"{model}/{version}"
        manifest = parse_manifest(content, f"{self.place}/{prefix}/{MANIFEST_FILE}")
        started = time.monotonic()

        def write(directory: Path) -> None:
            bring(self._objects, prefix, manifest, directory, self._say)
            seconds = time.monotonic() - started
            self._say(f"mirrored {self.place}/{prefix}: {manifest.total_bytes:,} bytes in {seconds:.1f} s")

        return self._mirror.take(model, version, manifest, content, write)

    def manifest(self, model: str, version: str) -> Manifest:
        """What a version says of itself; that its files are there with their lengths is looked at.

        Raises:
            BundleError: It is unreadable, or a file is not what it says.
        """
        prefix = f"{model}/{version}"
        where = f"{self.place}/{prefix}/{MANIFEST_FILE}"
        manifest = parse_manifest(self._manifest_bytes(model, version), where)
        check_lengths(self._objects, prefix, manifest)
        return manifest

    def signature(self, model: str, versions: Collection[str]) -> Signature:
        """Keys, lengths and ETags of the labels and of the versions' objects; nothing where the store is silent."""
        with suppress(StoreError):
            wanted = {f"{model}/{version}" for version in versions}
            return frozenset(
                (each.key, each.size, each.etag)
                for each in self._objects.list(model)
                if each.key == f"{model}/{LABELS_FILE}" or each.key.rpartition("/")[0] in wanted
            )
        return frozenset()

    def reserve(self, model: str, version: str = "", label: str | None = None) -> Path:
        """Where a new bundle may be built; see `Repository.reserve`. Raises also where the mirror cannot be one."""
        self._mirror.prepare()
        return super().reserve(model, version, label)

    def settle(self, model: str, labels: Mapping[str, str], versions: Collection[str]) -> None:
        """Keep what is served as the last good, and let versions go that neither that nor a label needs."""
        if not self.stale:
            self._mirror.settle(model, labels, versions)

    def close(self) -> None:
        """Bring nothing more."""
        self._objects.close()

    def unfinished(self, model: str) -> dict[str, datetime]:
        """Versions without a manifest, and when each got its latest file: an upload under way, or what one left."""
        return {
            version: max(each.modified for each in objects)
            for version, objects in self._below(model).items()
            if not _is_whole(objects)
        }

    def publish(
        self,
        manifest: Manifest,
        contents: BundleContents,
        write_graphs: Callable[[Path], None],
        check: Callable[[Path], object] = open_unverified,
        label: str | None = None,
    ) -> Path:
        """Build a bundle in the mirror, send it, and label it; see `Repository.publish`.

        Raises:
            StoreError: The store does not answer, or refuses.
        """

        def write(target: Path, version: str) -> Manifest:
            named = manifest.named(manifest.model.name, version)
            return write_bundle(target, named, contents, write_graphs, check)

        return self._send(manifest.model.name, manifest.model.version, write, label)

    def add(self, bundle: Path, model: str) -> str:
        """Copy a bundle into the mirror and send it; see `Repository.add`. Raises also as `publish`."""

        def write(target: Path, version: str) -> Manifest:
            named = open_manifest(bundle).named(model, version)
            copy_bundle(bundle, target, named)
            return named

        return self._send(model, "", write).name

    def _send(self, name: str, wanted: str, write: Callable[[Path, str], Manifest], label: str | None = None) -> Path:
        """Publish, manifest last, what is written into the mirror under a number.

        Whoever is killed in between leaves a version without a manifest, which nobody sees and a later one removes.
        """
        self.reserve(name, wanted, label)
        with self._claimed(name, wanted) as (version, still_ours):
            target = self._mirror.path(name, version)
            self._mirror.drop(name, version)  # of a repository that was at this address before
            written = write(target, version)
            self._mirror.hold(name, version)
            send(self._objects, f"{name}/{version}", target, written, self._say)
            still_ours()
            if not self._objects.create(f"{name}/{version}/{MANIFEST_FILE}", (target / MANIFEST_FILE).read_bytes()):
                raise BundleExists(f"{self.address(name, version)}: was published by somebody else; try again")
            if label is not None:
                self.set_label(name, label, version, verify=False)
        labels = self.labels(name)
        self._mirror.settle(name, labels, {version})
        return target

    def _has(self, model: str, version: str) -> bool:
        if self._mirror.holds(model, version):
            return True
        key = f"{require_model(model)}/{version}/{MANIFEST_FILE}"
        local = self._mirror.local
        return self._or_mirrored(
            lambda: self._objects.is_there(key), lambda: model in local.models() and version in local.versions(model)
        )

    def _numbers(self, model: str) -> list[int]:
        return [int(version) for version in self._below(model)]

    def _directory(self, model: str) -> Path:
        return self._mirror.local.root / require_model(model)

    def _open(self, model: str, version: str, *, verify: bool) -> None:
        self.manifest(model, version)
        if verify:
            open_bundle(self.fetch(model, version))

    def _change_labels(self, model: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        key = f"{model}/{LABELS_FILE}"
        for _ in range(TRIES):
            before = self._read_labels(model)
            labels = {} if before is None else parse_labels(before.data, f"{self.place}/{key}")
            content = encode_labels(change(labels))
            if before is None:
                done = self._objects.create(key, content)
            else:
                done = before.data == content or self._objects.replace(key, content, before.etag)
            if done:
                return
        raise RepositoryError(f"{self.place}/{key}: others keep changing it and it stays as they say; try again")

    def _read_labels(self, model: str) -> Content | None:
        """The labels as the store has them; None where there are none."""
        key, known = f"{model}/{LABELS_FILE}", self._labels.get(model)
        try:
            found = self._objects.read(key, MAXIMUM_LABELS_BYTES, known.etag if known else "")
        except FileNotFoundError:
            self._labels.pop(model, None)
            return None
        if found is not None:
            self._labels[model] = found
        return found or known

    def _manifest_bytes(self, model: str, version: str) -> bytes:
        try:
            found = self._objects.read(f"{model}/{version}/{MANIFEST_FILE}", MAXIMUM_MANIFEST_BYTES)
        except FileNotFoundError as error:
            raise UnknownVersion(
                f"{self.address(model, version)}: has no {MANIFEST_FILE}, so there is no such version; an upload may be"
                " under way"
            ) from error
        if found is None:
            raise NotABundle(f"{self.address(model, version)}: {MANIFEST_FILE} cannot be read; try again")
        return found.data

    def _below(self, model: str) -> dict[str, list[StoredObject]]:
        """Objects of a model by version, whole or not, oldest first."""
        found: dict[str, list[StoredObject]] = defaultdict(list)
        for each in self._objects.list(require_model(model)):
            parts = each.key.split("/")
            if len(parts) == 3 and is_version(parts[1]):
                found[parts[1]].append(each)
        return {version: found[version] for version in sorted(found, key=int)}

    def _whole(self, model: str) -> list[str]:
        return [version for version, objects in self._below(model).items() if _is_whole(objects)]

    def _mirrored_whole(self, model: str, version: str) -> bool:
        if self._mirror.holds(model, version):
            return True
        path = self._mirror.path(model, version)
        return path.is_dir() and is_whole(path, open_manifest(path))

    def _or_mirrored(self, ask: Callable[[], T], mirrored: Callable[[], T]) -> T:
        """What the store says, or, where it does not answer and somebody serves, what the mirror does."""
        try:
            answer = self._ask(ask)
        except StoreError:
            if not self._serves or not self._mirror.local.models():
                raise
            return mirrored()
        self.stale = ""
        return answer

    def _ask(self, ask: Callable[[], T]) -> T:
        if self._serves and time.monotonic() < self._silent_until:
            raise StoreError(self.stale)
        try:
            return ask()
        except StoreError as error:
            self.stale, self._silent_until = str(error), time.monotonic() + SILENT_SECONDS
            raise

    @contextmanager
    def _claimed(self, model: str, wanted: str) -> Iterator[tuple[str, Callable[[], None]]]:
        """Take a version number that nobody else has while the block lasts, and for good where it ends well.

        Yields:
            The number, and what raises where somebody else has it, too: in a store without conditions two may make the
            same claim, of which the later one holds.
        """
        self._remove_abandoned(model)
        token = secrets.token_hex(16)
        claim = json.dumps({"token": token, "created": datetime.now(UTC).isoformat(timespec="seconds")})
        for _ in range(TRIES):
            version = wanted or self.next_version(model)
            key = f"{model}/{version}/{CLAIM_FILE}"
            if self._objects.create(key, claim.encode()):
                break
            if wanted:
                raise BundleExists(f"{self.address(model, version)}: is taken by another upload; give another version")
        else:
            raise RepositoryError(f"{self.place}/{model}: others keep taking the next version; try again")

        def still_ours() -> None:
            found = self._objects.read(key, MAXIMUM_LABELS_BYTES)
            if found is None or token.encode() not in found.data:
                raise BundleExists(f"{self.address(model, version)}: was taken by another upload; try again")

        try:
            yield version, still_ours
        except BaseException:
            with suppress(StoreError, FileNotFoundError, BundleExists):  # what is left is no version, and goes later
                still_ours()
                self._remove(model, version)
            self._mirror.drop(model, version)
            raise

    def _remove(self, model: str, version: str) -> None:
        """Remove a version's objects, the manifest first: half of it is never seen."""
        prefix = f"{model}/{version}"
        keys = [each.key for each in self._objects.list(prefix)]
        first, last = f"{prefix}/{MANIFEST_FILE}", f"{prefix}/{CLAIM_FILE}"
        for group in ([first], [key for key in keys if key not in {first, last}], [last]):
            self._objects.remove([key for key in group if key in keys])

    def _remove_abandoned(self, model: str) -> None:
        """Remove what killed uploads left, and say so; of what is younger, say when it goes."""
        for version, latest in self.unfinished(model).items():
            where = self.address(model, version)
            if datetime.now(UTC) - latest > ABANDONED:
                self._remove(model, version)
                self._say(f"{where}: removed: an upload that broke off {latest:%Y-%m-%d %H:%M} UTC left it")
            else:
                self._say(describe_unfinished(where, latest))


def _is_whole(objects: Collection[StoredObject]) -> bool:
    return any(each.key.endswith(f"/{MANIFEST_FILE}") for each in objects)


def describe_unfinished(where: str, latest: datetime) -> str:
    """Say what a version without a manifest is, and when it goes."""
    return (
        f"{where}: has no {MANIFEST_FILE} and is no version; an upload is under way, or broke off: the first export"
        f" after {latest + ABANDONED:%Y-%m-%d %H:%M} UTC removes it"
    )
