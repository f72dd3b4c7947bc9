"""Where a repository is in an object store: bucket and prefix, and nothing that is secret."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from export.bundle.errors import ExportError

SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART = re.compile(r"[A-Za-z0-9_=+-][A-Za-z0-9._=+-]{0,127}")
_FORM = "give s3://BUCKET/PREFIX"


def is_s3(place: str | Path) -> bool:
    """Whether a repository is in an object store."""
    return isinstance(place, str) and place.lower().startswith(SCHEME)


@dataclass(frozen=True)
class S3Address:
    """A bucket, and the part of it that holds a repository.

    Attributes:
        prefix: Without slashes at its ends; empty for the whole bucket.
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> S3Address:
        """Read `s3://BUCKET/PREFIX`.

        Raises:
            ExportError: It is none, or it holds credentials or options.
        """
        rest = text[len(SCHEME) :]
        if any(mark in rest for mark in "@?#"):  # not repeated: it may be a secret
            raise ExportError(
                f"s3://…: holds '@', '?' or '#': {_FORM}; endpoint and credentials come from AWS_ENDPOINT_URL,"
                " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ExportError(f"{text}: bucket {bucket!r} is 3 to 63 of a-z, 0-9, '.' and '-': {_FORM}")
        parts = prefix.rstrip("/").split("/") if prefix.rstrip("/") else []
        for part in parts:
            if not _PART.fullmatch(part):
                raise ExportError(f"{text}: {part!r} of the prefix must be letters, digits and '._=+-': {_FORM}")
        return cls(bucket, "/".join(parts))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")
