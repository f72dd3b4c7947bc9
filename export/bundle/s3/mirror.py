"""The mirror: versions of a repository that is elsewhere, on this machine's disk, whole or not there.

It is a repository in a directory. Its labels are those under which something was last served from here, and so point
to versions that were good; a server whose store is gone starts from them.
A version is held by a shared lock on its directory while a process needs it; what nobody holds, no label names and is
not among the newest few goes. The locks of a process that dies are gone with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from export.bundle.arrays import sha256_of
from export.bundle.errors import CannotWriteBundle, RepositoryError
from export.bundle.manifest import MANIFEST_FILE, Manifest
from export.bundle.repository import ModelRepository, locked, remove_version, write_file
from export.bundle.s3.address import S3Address
from export.bundle.writer import flush, open_draft

SOURCE_FILE = ".mirror"
"""In the mirror's root: of which repository it is one."""
LEFT_FREE_BYTES = 64 * 1024 * 1024

Bring = Callable[[Path], None]


def default_mirror(address: S3Address, endpoint: str) -> Path:
    """A directory of its own for each repository, in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(f"{endpoint}\n{address}".encode()).hexdigest()[:12]
    return cache / "lowpass" / "mirrors" / f"{address.bucket}-{digest}"


class Mirror:
    """A directory that holds versions of one repository.

    Args:
        root: Made by `prepare`, where it is not there.
        source: The repository.
        spare: Versions that stay although nobody needs them.

    Attributes:
        local: What is there, as a repository.
    """

    def __init__(self, root: Path, source: str, spare: int) -> None:
        self.local = ModelRepository(root)
        self._source, self._spare = source, spare
        self._held: dict[tuple[str, str], int] = {}
        self._writing = Lock()

    def prepare(self) -> None:
        """Make the directory, or see that it is this repository's; who only asks the store needs none.

        Raises:
            RepositoryError: It is another repository's, or something else is there, or it cannot be written.
        """
        root, source = self.local.root, self._source
        marker = root / SOURCE_FILE
        try:
            root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                if any(path.name != SOURCE_FILE for path in root.iterdir() if not path.name.endswith(".draft")):
                    raise RepositoryError(
                        f"{root}: is not empty and no mirror of {source}; give an empty directory, since a mirror"
                        " removes versions that nobody needs"
                    )
                write_file(marker, f"{source}\n".encode())
            found = marker.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RepositoryError(f"{root}: cannot be a mirror ({error}); give another directory") from error
        if found != source:
            raise RepositoryError(f"{root}: is the mirror of {found[:200]}; give one of its own to {source}")

    def path(self, model: str, version: str) -> Path:
        """Where a version is, or comes."""
        return self.local.fetch(model, version)

    def holds(self, model: str, version: str) -> bool:
        """Whether this process holds a version: it was verified, and cannot go."""
        return (model, version) in self._held

    def take(self, model: str, version: str, manifest: Manifest, content: bytes, bring: Bring) -> Path:
        """Hold a version, and bring it first unless it is here with the same manifest and whole.

        Args:
            content: `manifest` as bytes.
            bring: Writes all files but the manifest into a directory, each as its entry says, or raises.

        Raises:
            CannotWriteBundle: The disk is full, or may not be written.
            BundleError: What `bring` raises.
        """
        self.prepare()
        path = self.path(model, version)
        try:
            path.parent.mkdir(exist_ok=True)
            with self._alone(path.parent):
                if not (self._is_same(path, content) and (self.holds(model, version) or is_whole(path, manifest))):
                    self._bring(path, manifest, content, bring)
                self.hold(model, version)
        except OSError as error:
            raise CannotWriteBundle(
                f"{path}: cannot be written ({error.strerror or error}) and nothing is left of it; free space there, or"
                " give another --mirror"
            ) from error
        return path

    def hold(self, model: str, version: str) -> None:
        """Keep a version that is here from being removed, by any process, until it is settled that nobody needs it."""
        with self._writing:
            if (model, version) not in self._held:
                handle = os.open(self.path(model, version), os.O_RDONLY)
                with suppress(OSError):  # a file system without locks: one server a mirror there
                    fcntl.flock(handle, fcntl.LOCK_SH)
                self._held[model, version] = handle

    def settle(self, model: str, labels: Mapping[str, str], versions: Collection[str]) -> None:
        """Keep labels of what is here, let go of versions that are not served any more, and remove what nobody needs.

        Args:
            labels: Of the repository.
            versions: That this process serves.
        """
        here = set(self.local.versions(model))
        for version in here & set(versions):
            self.hold(model, version)
        kept = {label: version for label, version in labels.items() if version in here}
        if kept != self.local.labels(model):
            self.local.replace_labels(model, kept)
        for name, version in list(self._held):
            if name == model and version not in versions:
                self._let_go(name, version)
        self.prune(model, {*versions, *labels.values()})

    def drop(self, model: str, version: str) -> None:
        """Remove a version that nobody has been told of, if it is here."""
        self._let_go(model, version)
        if (path := self.path(model, version)).exists():
            remove_version(path)

    def prune(self, model: str, needed: Collection[str]) -> None:
        """Remove versions that are not needed, not held, and not among the newest few of the rest."""
        rest = [version for version in self.local.versions(model) if version not in needed]
        for version in rest[: max(0, len(rest) - self._spare)]:
            with suppress(OSError):  # another process holds it, or removes it, too
                handle = os.open(self.path(model, version), os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_version(self.path(model, version))
                finally:
                    os.close(handle)

    def _let_go(self, model: str, version: str) -> None:
        with self._writing:
            if (handle := self._held.pop((model, version), None)) is not None:
                os.close(handle)

    def _is_same(self, path: Path, content: bytes) -> bool:
        try:
            return (path / MANIFEST_FILE).read_bytes() == content
        except OSError:
            return False

    def _bring(self, path: Path, manifest: Manifest, content: bytes, bring: Bring) -> None:
        free = shutil.disk_usage(path.parent).free
        if manifest.total_bytes + LEFT_FREE_BYTES > free:
            raise CannotWriteBundle(
                f"{path}: needs {manifest.total_bytes:,} bytes, and {free:,} are free; free space there, or give"
                " another --mirror"
            )
        draft, lock = open_draft(path)
        try:
            bring(draft)
            (draft / MANIFEST_FILE).write_bytes(content)
            draft.chmod(0o755)
            flush([*draft.iterdir(), draft])
            # Damaged, or of another content; whoever has it mapped keeps what it has.
            self.drop(path.parent.name, path.name)
            draft.rename(path)
            flush([path.parent])
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(lock)

    @contextmanager
    def _alone(self, directory: Path) -> Iterator[None]:
        """One process of this machine brings versions of a model at a time; the others then find what it brought."""
        bringing = directory / ".bringing"
        bringing.mkdir(exist_ok=True)
        with locked(bringing):
            yield


def is_whole(path: Path, manifest: Manifest) -> bool:
    """Whether each file of a bundle is there with its length and checksum."""
    for name, entry in manifest.files.items():
        file = path / name
        try:
            if file.is_symlink() or file.stat().st_size != entry.bytes or sha256_of(file) != entry.sha256:
                return False
        except OSError:
            return False
    return True
