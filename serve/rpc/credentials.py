"""Who may call: API keys by their digests, and certificates that are read again when they change on disk.

A file of keys has a line a key: a name, a space, and `sha256:` with the digest of the key. `lowpass key` makes both.
While a server runs, a file without keys, or none, lets nobody in; one that cannot be read leaves the old keys in force.
Keys are long random strings, so that a plain digest is enough: there is nothing to guess.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
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

_UNTIMELY = {
    9: "the certificate is not valid yet; look at its dates and at this machine's clock",
    10: "the certificate has expired; put a new one there",
}
"""Of OpenSSL's reasons why a certificate is not verified (X509_V_ERR_…), those that time brings."""

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

    def _times(self) -> tuple[object, ...]:
        return tuple(_trace(path) for path in self._paths)


def _trace(path: Path) -> tuple[int, ...] | None:
    """What differs once a file has changed, or its mode has; two writes may fall into one tick of the clock."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


class ApiKeys:
    """The keys of one file; once it is empty or gone, nobody may call.

    Raises:
        UnusableCredentials: It cannot be read, a line of it is wrong, or it has no key yet.
    """

    def __init__(self, path: Path) -> None:
        if not read_digests(path):
            raise UnusableCredentials(f"{path}: holds no key; 'lowpass key' makes one")
        self._digests = FollowedFiles([path], lambda: _digests_in_force(path))

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


def authorizer(keys: Path | None) -> Authorize | None:
    """Who says that a caller may not call: the keys of a file; None, where there is none, lets everybody.

    Raises:
        UnusableCredentials: See `ApiKeys`.
    """
    return None if keys is None else ApiKeys(keys).authorize


def digest_of(key: str) -> bytes:
    """What a file holds of a key."""
    return hashlib.sha256(key.encode()).digest()


def _digests_in_force(path: Path) -> dict[str, bytes]:
    """Those of a file, none where it is gone: whoever takes the list away means that nobody is on it."""
    try:
        digests = read_digests(path)
    except UnusableCredentials as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        digests = {}
    if not digests:
        LOG.warning("no API key is left: nobody may call", extra={"fields": {"file": str(path)}})
    return digests


def read_digests(path: Path) -> dict[str, bytes]:
    """Name → digest of a key.

    Raises:
        UnusableCredentials: The file cannot be read, or a line of it is wrong.
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
        UnusableCredentials: A line is wrong.
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
    return digests


def new_key(name: str) -> tuple[str, str]:
    """A key, and the line that lets it call.

    Args:
        name: Of whoever is to hold it.
    """
    key = secrets.token_urlsafe(32)
    return key, f"{name} sha256:{digest_of(key).hex()}"


def add_key(path: Path, name: str) -> str:
    """Make a key, and add its line to a file, whose mode and owner stay; a new file is open to its owner alone.

    Args:
        path: Need not exist; its directory must.
        name: Of whoever is to hold it.

    Raises:
        UnusableCredentials: The name is wrong or taken, a line of the file is wrong, or it cannot be written.
    """
    key, line = new_key(name)
    if not _LINE.fullmatch(line):
        raise UnusableCredentials(f"{name!r}: give a name of letters, digits, '.', '_' and '-', at most 64")
    target = path.resolve()  # What a link points to is written, not the link.
    if not target.parent.is_dir():
        raise UnusableCredentials(f"{path}: its directory does not exist: make it first")
    try:
        with _alone_in(target.parent) as directory:
            before = target.read_text(encoding="utf-8") if target.exists() else ""
            if name in parse_digests(before, path):
                raise UnusableCredentials(f"{path}: has a key named {name!r}: choose another name, or remove its line")
            separator = "" if before.endswith("\n") or not before else "\n"
            _replace(target, f"{before}{separator}{line}\n".encode(), directory)
    except UnicodeDecodeError as error:
        raise UnusableCredentials(f"{path}: is no text ({error.reason}): give a file of keys") from error
    except OSError as error:
        raise UnusableCredentials(f"{path}: cannot be written ({error.strerror}): choose another place") from error
    return key


@contextmanager
def _alone_in(directory: Path) -> Iterator[int]:
    """Its descriptor, once nobody else who asks for it is at work there."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes, directory: int) -> None:
    """Put a file of the same mode and owner in its place: a server that reads it meanwhile finds the old or the new."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            if path.exists():
                before = path.stat()
                os.fchown(stream.fileno(), before.st_uid, before.st_gid)
                os.fchmod(stream.fileno(), before.st_mode & 0o7777)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
        os.fsync(directory)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


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
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # gRPC would take a key of another certificate, and then fail every handshake.
        server.load_cert_chain(files.certificate, files.key)
    except (ssl.SSLError, OSError) as error:
        raise UnusableCredentials(f"{files.key}: does not fit {files.certificate} ({error})") from error
    if said := _untimely(server, certificate):
        raise UnusableCredentials(f"{files.certificate}: {said}")
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def certificate_ends(files: TlsFiles) -> Callable[[], Mapping[str, float]]:
    """What tells when the certificates in force end, in seconds since 1970.

    They go by whose they are: "server" its own, "client_authority" the first of those who sign clients.

    Raises:
        UnusableCredentials: A file cannot be read or is not PEM.
    """
    followed = FollowedFiles(files.paths, lambda: _read_ends(files))
    return lambda: followed.current()[0]


def _read_ends(files: TlsFiles) -> dict[str, float]:
    _read_tls(files)  # What is refused there is not in force.
    ends = {}
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    with suppress(ssl.SSLError, ValueError):  # one that no client would take has no date to know
        peer = _meet(server, files.certificate.read_bytes()).getpeercert()
        ends["server"] = float(ssl.cert_time_to_seconds(str((peer or {})["notAfter"])))
    signers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if files.client_authority is not None:
        signers.load_verify_locations(files.client_authority)
        dates = [float(ssl.cert_time_to_seconds(str(each["notAfter"]))) for each in signers.get_ca_certs()]
        ends |= {"client_authority": min(dates)} if dates else {}
    return ends


def _untimely(server: ssl.SSLContext, certificate: bytes) -> str:
    """What is wrong with a certificate's dates, if anything, as a client that trusts it sees them."""
    try:
        _meet(server, certificate)
    except ssl.SSLCertVerificationError as error:
        return _UNTIMELY.get(error.verify_code, "")
    except ssl.SSLError:
        pass  # of something else, which callers may judge otherwise
    return ""


def _meet(server: ssl.SSLContext, certificate: bytes) -> ssl.SSLObject:
    """Shake hands in memory with a client that trusts this certificate; returns the client's end.

    Raises:
        ssl.SSLError: They cannot.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    client.load_verify_locations(cadata=certificate.decode("ascii", errors="ignore"))
    for end in ends * 3:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return ends[0]


def _read_pem(path: Path, kind: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableCredentials(f"{path}: unreadable ({error.strerror}); give a PEM file") from error
    if f"{kind}-----".encode() not in content:
        raise UnusableCredentials(f"{path}: holds no {kind.lower()} in PEM")
    return content
