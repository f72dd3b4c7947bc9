"""Objects below an address: read in bounds, made only where they are not there, replaced only where nobody else did.

The driver is obstore, Rust's `object_store`: it reads the `AWS_*` environment itself and tries again what may be tried.
What it says of an error has the request in it; messages here say the status and the remedy instead.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotModifiedError, NotSupportedError, PreconditionError
from obstore.store import S3Store

from export.bundle.errors import RepositoryError, StoreError
from export.bundle.s3.address import S3Address

PIECE_BYTES = 8 * 1024 * 1024
"""What is sent or read at a time: the most that a transfer holds in memory, but for parts of very long files."""
MOST_PARTS = 9000
"""S3 takes 10,000 of a file."""
CONNECT_SECONDS, REQUEST_SECONDS, RETRIES, RETRY_SECONDS = 5, 30, 4, 60
_STATUS, _CODE = re.compile(r"status code: (\d{3})"), re.compile(r"<Code>(\w{1,64})</Code>")
_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NOT_IMPLEMENTED = "501"

if TYPE_CHECKING:
    from obstore.store import ClientConfig

Count = Callable[[int], None]


@dataclass(frozen=True)
class StoredObject:
    """An object.

    Attributes:
        key: Below the address.
        size: In bytes.
        etag: What changes with its content.
        modified: By the store's clock.
    """

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Content:
    """An object's bytes, and the ETag that they had."""

    data: bytes
    etag: str


class Objects:
    """The objects below an address; used from any thread.

    Args:
        address: Bucket and prefix.

    Raises:
        StoreError: What the environment says cannot be used.
    """

    def __init__(self, address: S3Address) -> None:
        self.address = address
        self._closed = Event()
        with self._asking():
            self._store = _open(address)

    def read(self, key: str, most: int, unless: str = "") -> Content | None:
        """An object whole.

        Args:
            key: Below the address.
            most: A longer one is refused before it is read.
            unless: An ETag: None where the object still has it.

        Raises:
            FileNotFoundError: It is not there.
            RepositoryError: It is too long.
            StoreError: The store does not answer, or refuses.
        """
        with self._asking():
            try:
                found = obstore.get(self._store, key, options={"if_none_match": unless} if unless else None)
            except NotModifiedError:
                return None
            if found.meta["size"] > most:
                raise RepositoryError(f"{self.address}/{key}: longer than {most} bytes; write it again")
            return Content(bytes(found.bytes()), str(found.meta["e_tag"] or ""))

    def is_there(self, key: str) -> bool:
        """Whether there is such an object; raises as `read`."""
        with self._asking():
            try:
                obstore.head(self._store, key)
            except FileNotFoundError as error:
                self._require_bucket(error)
                return False
        return True

    def create(self, key: str, content: bytes) -> bool:
        """Make an object, unless it is there; a store without such conditions makes it anyway.

        Returns:
            Whether it was made.
        """
        with self._asking():
            try:
                self._put_if(key, content, "create")
            except AlreadyExistsError:
                return False
        return True

    def replace(self, key: str, content: bytes, etag: str) -> bool:
        """Replace an object, unless somebody else did since; a store without such conditions replaces it anyway.

        Returns:
            Whether it was replaced.
        """
        with self._asking():
            try:
                self._put_if(key, content, {"e_tag": etag})
            except PreconditionError:
                return False
        return True

    def list(self, below: str) -> list[StoredObject]:
        """All objects below a key."""
        with self._asking():
            return [
                StoredObject(meta["path"], meta["size"], str(meta["e_tag"] or ""), meta["last_modified"])
                for page in obstore.list(self._store, below)
                for meta in page
            ]

    def folders(self, below: str = "") -> Sequence[str]:
        """Names of what stands right below a key and has something below itself."""
        with self._asking():
            prefixes = obstore.list_with_delimiter(self._store, below or None)["common_prefixes"]
            return [prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes]

    def upload(self, path: Path, key: str, count: Count) -> None:
        """Send a file.

        Args:
            count: Told of bytes as they are taken.
        """
        size = path.stat().st_size
        part = max(PIECE_BYTES, -(-size // MOST_PARTS))
        with self._asking():
            if size <= part:
                obstore.put(self._store, key, path.read_bytes(), use_multipart=False)
                count(size)
            else:
                obstore.put(self._store, key, _pieces(path, part, count), chunk_size=part, max_concurrency=2)

    def download(self, key: str, path: Path, size: int, count: Count) -> str:
        """Write an object to a new file, and not more than `size` bytes of it.

        Args:
            count: Told of bytes as they come.

        Returns:
            The SHA-256 of what was written.
        """
        digest = hashlib.sha256()
        with self._asking(), path.open("xb") as stream:
            for start in range(0, size, PIECE_BYTES):
                if self._closed.is_set():
                    raise StoreError(f"{self.address}/{key}: not brought, since its reader stops; start that again")
                piece = obstore.get_range(self._store, key, start=start, end=min(start + PIECE_BYTES, size))
                stream.write(piece)
                digest.update(piece)
                count(len(piece))
        return digest.hexdigest()

    def close(self) -> None:
        """Let downloads under way end with an error at their next piece."""
        self._closed.set()

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there is no error."""
        with self._asking():
            if keys:
                obstore.delete(self._store, keys)

    def _put_if(self, key: str, content: bytes, mode: Any) -> None:
        try:
            obstore.put(self._store, key, content, mode=mode)
        except (NotSupportedError, BaseError) as error:
            if not isinstance(error, NotSupportedError) and _status(error) != _NOT_IMPLEMENTED:
                raise
            obstore.put(self._store, key, content, use_multipart=False)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            self._require_bucket(error)
            raise
        except (BaseError, ValueError) as error:
            # Not chained: what the driver says repeats the request, with the key's id in it.
            raise StoreError(f"{self.address}: {_reason(str(error))}") from None

    def _require_bucket(self, error: Exception) -> None:
        if "NoSuchBucket" in str(error):
            raise StoreError(f"{self.address}: no bucket {self.address.bucket}; make it first") from None


def _open(address: S3Address) -> S3Store:
    client: ClientConfig = {"connect_timeout": f"{CONNECT_SECONDS}s", "timeout": f"{REQUEST_SECONDS}s"}
    if urlsplit(read_endpoint()).scheme == "http":
        client["allow_http"] = True
    if authority := os.environ.get("AWS_CA_BUNDLE"):
        try:
            client["root_certificate"] = Path(authority).read_bytes()
        except OSError as error:
            raise StoreError(f"AWS_CA_BUNDLE {authority}: cannot be read ({error.strerror})") from error
    retry: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    return S3Store(address.bucket, prefix=address.prefix or None, client_options=client, retry_config=retry)


def read_endpoint() -> str:
    """The store's URL, of the environment; empty for AWS's own."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _pieces(path: Path, size: int, count: Count) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(size):
            yield piece
            count(len(piece))


def _status(error: BaseException) -> str:
    found = _STATUS.search(str(error))
    return found[1] if found else ""


def _reason(said: str) -> str:
    """What an error of the driver means, and the remedy, without what was asked."""
    status, code = _STATUS.search(said), _CODE.search(said)
    if "169.254." in said or "credential" in said.lower():
        return f"no credentials: set {_CREDENTIALS}, or give this machine or container a role"
    if code and code[1] == "NoSuchBucket":
        return "no such bucket; make it first"
    answer = " ".join(each[1] for each in (status, code) if each)
    if status and status[1] in {"401", "403"}:
        return f"the store refuses ({answer}): look at {_CREDENTIALS}, and at what they may do there"
    if status:
        return f"the store answers {answer}; try again, and look at its log"
    place = urlsplit(read_endpoint()).netloc.rpartition("@")[2] or "AWS S3"
    return f"{place} does not answer; look at AWS_ENDPOINT_URL and AWS_REGION, and whether it runs"
