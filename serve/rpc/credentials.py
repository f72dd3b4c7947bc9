"""Who may call: API keys by their digests, and certificates that are read again when they change on disk.

A file of keys has a line a key: a name, a space, and `sha256:` with the digest of the key. `lowpass key` makes both.
Keys are long random strings, so that a plain digest is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

import grpc

from serve.answers.errors import RequestError, Unauthenticated, UnusableCredentials

LOG = logging.getLogger("lowpass.serve")
HEADER = "authorization"
SCHEME = "bearer"
"""In any case, as RFC 9110 has it."""
LOOK_AGAIN = 1.0
"""Seconds between looks at a file's time of change."""
_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\s+sha256:(?P<digest>[0-9a-f]{64})")

Metadata = Iterable[tuple[str, str | bytes]]
Authorize = Callable[[Metadata], RequestError | None]
Content = TypeVar("Content")


class FollowedFiles(Generic[Content]):
    """What is in files, read again when one of them changes; what cannot be read leaves the old content in force.

    Args:
        read: Reads them all.

    Raises:
        UnusableCredentials: They cannot be read now.
    """

    def __init__(self, paths: Iterable[Path], read: Callable[[], Content]) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._seen = self._times()
        self._looked = monotonic()
        self._content = read()

    def current(self) -> tuple[Content, bool]:
        """The content in force, and whether it is new since the last call."""
        with self._lock:
            if monotonic() - self._looked < LOOK_AGAIN:
                return self._content, False
            self._looked = monotonic()
            times = self._times()
            if times == self._seen:
                return self._content, False
            self._seen = times
            try:
                self._content = self._read()
            except UnusableCredentials as error:
                LOG.error("credentials left as they are", extra={"fields": {"error": str(error)}})
                return self._content, False
            LOG.info("credentials read again", extra={"fields": {"files": [str(path) for path in self._paths]}})
            return self._content, True

    def _times(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in self._paths)


class ApiKeys:
    """The keys of one file.

    Raises:
        UnusableCredentials: It cannot be read, or a line of it is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._digests = FollowedFiles([path], lambda: read_digests(path))

    def authorize(self, metadata: Metadata) -> RequestError | None:
        """Why a caller who shows this metadata may not call, or None if it may."""
        digests, _ = self._digests.current()
        shown = next((str(value) for name, value in metadata if name == HEADER), "")
        scheme, _, key = shown.partition(" ")
        if scheme.lower() != SCHEME:
            return Unauthenticated()
        digest = digest_of(key.lstrip(" "))
        # Every key is compared, each in constant time: nothing is told by how long it takes.
        found = [hmac.compare_digest(digest, known) for known in digests.values()]
        return None if any(found) else Unauthenticated()


def digest_of(key: str) -> bytes:
    """What a file holds of a key."""
    return hashlib.sha256(key.encode()).digest()


def read_digests(path: Path) -> dict[str, bytes]:
    """Name → digest of a key.

    Raises:
        UnusableCredentials: The file cannot be read, a line of it is wrong, or it has no key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableCredentials(f"{path}: unreadable ({error}); 'lowpass key' makes it") from error
    return parse_digests(text, path)


def parse_digests(text: str, path: Path) -> dict[str, bytes]:
    """Name → digest of a key.

    Args:
        path: Named where a line is wrong.

    Raises:
        UnusableCredentials: A line is wrong, or there is no key.
    """
    digests = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        match = _LINE.fullmatch(entry)
        if match is None:
            raise UnusableCredentials(f"{path}:{number}: must be NAME sha256:DIGEST; 'lowpass key' makes such a line")
        digests[match["name"]] = bytes.fromhex(match["digest"])
    if not digests:
        raise UnusableCredentials(f"{path}: holds no key; 'lowpass key' makes one")
    return digests


def new_key(name: str) -> tuple[str, str]:
    """A key, and the line that lets it call.

    Args:
        name: Of whoever is to hold it.
    """
    key = secrets.token_urlsafe(32)
    return key, f"{name} sha256:{digest_of(key).hex()}"


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a server.

    Args:
        certificate: The server's chain.
        client_authority: Who signs clients; None lets any client in.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.certificate, self.key, *([self.client_authority] if self.client_authority else []))


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """TLS for a server, mutual where there is a client authority; files that change are used from the next handshake.

    Raises:
        UnusableCredentials: A file cannot be read or is not PEM.
    """
    followed = FollowedFiles(files.paths, lambda: _read_tls(files))
    first, _ = followed.current()

    def latest() -> grpc.ServerCertificateConfiguration | None:
        content, is_new = followed.current()
        return content if is_new else None

    mutual = files.client_authority is not None
    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        first,
        latest,  # type: ignore[arg-type]  # documented to return None for no change
        require_client_authentication=mutual,
    )
    return credentials


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The same for a server on Python's own sockets; what is read here stays as it is.

    Raises:
        UnusableCredentials: A file cannot be read or is not PEM.
    """
    _read_tls(files)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.client_authority is not None:
            context.load_verify_locations(files.client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as error:
        raise UnusableCredentials(f"{files.client_authority or files.certificate}: unusable ({error})") from error
    return context


def _read_tls(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    certificate, key = _read_pem(files.certificate, "CERTIFICATE"), _read_pem(files.key, "PRIVATE KEY")
    authority = _read_pem(files.client_authority, "CERTIFICATE") if files.client_authority else None
    try:
        # gRPC would take a key of another certificate, and then fail every handshake.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
    except (ssl.SSLError, OSError) as error:
        raise UnusableCredentials(f"{files.key}: does not fit {files.certificate} ({error})") from error
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def _read_pem(path: Path, kind: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableCredentials(f"{path}: unreadable ({error.strerror}); give a PEM file") from error
    if f"{kind}-----".encode() not in content:
        raise UnusableCredentials(f"{path}: holds no {kind.lower()} in PEM")
    return content
