"""Whole versions on their way: files in parallel, told how far they are, and checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from export.bundle.errors import ChecksumMismatch, MissingFile, SizeMismatch
from export.bundle.manifest import MANIFEST_FILE, FileEntry, Manifest
from export.bundle.s3.objects import Objects, StoredObject

FILES_AT_ONCE = 4
TOLD_SECONDS = 5.0

Say = Callable[[str], None]


class Progress:
    """Tells every few seconds how much has gone, and how long the rest may take.

    Args:
        what: That goes.
        total: In bytes.
        say: Told; what is quick is not.
        clock: Monotonic, in seconds.
    """

    def __init__(self, what: str, total: int, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._say, self._clock = what, total, say, clock
        self._done, self._started, self._told = 0, clock(), clock()
        self._alone = Lock()

    def count(self, size: int) -> None:
        """Note that some bytes more have gone; from any thread."""
        with self._alone:
            self._done += size
            now = self._clock()
            if now - self._told < TOLD_SECONDS or self._done >= self._total:
                return
            self._told = now
            left = (now - self._started) * (self._total - self._done) / self._done
            self._say(f"{self._what}: {self._done:,} of {self._total:,} bytes, about {left:.0f} s more")


def send(objects: Objects, prefix: str, bundle: Path, manifest: Manifest, say: Say) -> None:
    """Send all files of a bundle but its manifest, the longest first.

    Raises:
        StoreError: The store does not answer, or refuses.
    """
    progress = Progress(f"sending {prefix}", manifest.total_bytes, say)

    def one(name: str) -> None:
        objects.upload(bundle / name, f"{prefix}/{name}", progress.count)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(one, _longest_first(manifest.files)))


def bring(objects: Objects, prefix: str, manifest: Manifest, directory: Path, say: Say) -> None:
    """Write all files that a manifest lists into a directory; before that, all have the length that they must have.

    Raises:
        MissingFile: One is not there.
        SizeMismatch: One has another length.
        ChecksumMismatch: One has other content.
        StoreError: The store does not answer, or refuses.
    """
    check_lengths(objects, prefix, manifest)
    progress = Progress(f"bringing {prefix}", manifest.total_bytes, say)

    def one(name: str) -> None:
        entry, key = manifest.files[name], f"{prefix}/{name}"
        try:
            digest = objects.download(key, directory / name, entry.bytes, progress.count)
        except FileNotFoundError as error:
            raise MissingFile(f"{objects.address}/{key}: is gone; publish the version again") from error
        if digest != entry.sha256:
            raise ChecksumMismatch(
                f"{objects.address}/{key}: SHA-256 is not the manifest's; publish the version again under a new number"
            )

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        try:
            list(pool.map(one, _longest_first(manifest.files)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def check_lengths(objects: Objects, prefix: str, manifest: Manifest) -> list[StoredObject]:
    """Look whether every file that a manifest lists is there with its length.

    Raises:
        MissingFile: One is not.
        SizeMismatch: One has another.
    """
    found = objects.list(prefix)
    sizes = {each.key.rpartition("/")[2]: each.size for each in found}
    for name, entry in manifest.files.items():
        where = f"{objects.address}/{prefix}/{name}"
        if name not in sizes:
            raise MissingFile(f"{where}: is not there, although {MANIFEST_FILE} lists it; publish the version again")
        if sizes[name] != entry.bytes:
            raise SizeMismatch(f"{where}: has {sizes[name]:,} bytes, not {entry.bytes:,}; publish the version again")
    return found


def _longest_first(files: Mapping[str, FileEntry]) -> list[str]:
    return sorted(files, key=lambda name: -files[name].bytes)
