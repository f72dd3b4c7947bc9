"""Where a job publishes: a folder, or an object store, of which the job keeps a mirror in its own folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.bundle import Repository, open_repository
from export.bundle.opening import parse_place
from export.bundle.s3.address import is_s3
from jobs.errors import SpecError

MIRROR = "mirror"
"""In the job's folder: the versions that labels point to, against which the gate holds the next one."""


def open_place(place: str, folder: Path, say: Callable[[str], None] | None = None) -> Repository:
    """Open the repository of a spec; nothing is read or written yet.

    Args:
        place: A folder's path, or `s3://BUCKET/PREFIX`.
        folder: The job's.
        say: Told what is brought or sent, and how far that is.

    Raises:
        SpecError: It is something else.
        BundleError: It is a file, or no address of a bucket, or the driver of object stores is not installed.
    """
    if "://" in place and not is_s3(place):
        raise SpecError(f"'{place.partition('://')[0]}' is no kind of repository; give a folder, or s3://BUCKET/PREFIX")
    return open_repository(parse_place(place), mirror=folder / MIRROR, spare=0, say=say)
