"""Getting the files of a catalogue entry: by HTTPS with resume, or from a copy at hand; checksum always.

A file is written to `NAME.part`, checked, flushed and renamed. What is left of a cut download is resumed.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from distill.data.catalog import CatalogEntry, CatalogFile
from distill.errors import DataError

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 3
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
RANGE_NOT_SATISFIABLE = 416


def fetch(entry: CatalogEntry, directory: Path, *, mirror: str | None = None) -> list[Path]:
    """Download the files of `entry` that are not in `directory` yet.

    Args:
        entry: What to get.
        directory: Where the files are to stand; made when missing.
        mirror: Base URL that holds `<entry name>/<file name>`, in place of the catalogue's own URLs.

    Returns:
        The files, all of them checked.

    Raises:
        DataError: A download failed, was cut, is too long, or has another checksum.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for file in entry.files:
        url = f"{mirror.rstrip('/')}/{entry.name}/{file.name}" if mirror else file.url
        _require_safe(url)
        target = directory / file.name
        if not _is_whole(target, file):
            _download(url, file, target)
        paths.append(target)
    return paths


def take_local(entry: CatalogEntry, source: Path, directory: Path) -> list[Path]:
    """Copy the files of `entry` from a folder, or from the one file of a set that has one, checking them.

    Raises:
        DataError: A file is missing or has another checksum.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; check the path of --from-file")
    if source.is_file() and len(entry.files) > 1:
        names = ", ".join(file.name for file in entry.files)
        raise DataError(f"{source}: '{entry.name}' has several files ({names}); give the folder that holds them")
    found = {file.name: source / file.name if source.is_dir() else source for file in entry.files}
    for file in entry.files:
        path = found[file.name]
        if not path.is_file():
            raise DataError(f"{path}: missing; '{entry.name}' needs it: give the folder that holds it")
        _require_checksum(path, file, str(path), "give the file of the catalogue's version")
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for file in entry.files:
        target = directory / file.name
        if found[file.name].resolve() != target.resolve():
            draft = _part_path(target)
            shutil.copyfile(found[file.name], draft)
            _publish(draft, target)
        paths.append(target)
    return paths


def _part_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _is_whole(path: Path, file: CatalogFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and _digest(path) == file.sha256


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_checksum(path: Path, file: CatalogFile, shown: str, remedy: str) -> None:
    found = _digest(path)
    if found != file.sha256:
        raise DataError(f"{shown}: sha256 is {found}, expected {file.sha256}; {remedy}")


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK):
        return
    raise DataError(f"{url}: only https is allowed (http on this machine alone); give an https --mirror")


def _download(url: str, file: CatalogFile, target: Path) -> None:
    part = _part_path(target)
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    with tqdm(total=file.size, unit="B", unit_scale=True, desc=file.name, disable=None) as bar:
        for _ in range(ATTEMPTS):
            _append(url, file, part, bar)
            if part.stat().st_size == file.size:
                break
    size = part.stat().st_size
    if size < file.size:
        raise DataError(f"{url}: cut at {size} of {file.size} bytes; run the command again to resume")
    try:
        _require_checksum(part, file, url, "try again, or give a good copy by --from-file")
    except DataError:
        part.unlink()
        raise
    _publish(part, target)


def _append(url: str, file: CatalogFile, part: Path, bar: Any) -> None:
    """Ask for what `part` lacks and append it; a cut connection just ends it early."""
    start = part.stat().st_size if part.is_file() else 0
    if start == file.size:
        return
    try:
        response = _open(url, start)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == RANGE_NOT_SATISFIABLE and start:
            part.unlink()
            part.touch()
            return
        raise DataError(
            f"{url}: the server answered {error.code} {error.reason}; give --mirror or --from-file"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{url}: cannot connect ({reason}); give --mirror or --from-file") from error
    with response:
        _require_safe(response.url)
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT and _range_start(response) == start
        with part.open("ab" if resumed else "wb") as stream:
            bar.reset()
            bar.update(start if resumed else 0)
            _copy(url, response, stream, file.size, bar)


def _open(url: str, start: int) -> Any:
    """Open `url` from byte `start`; only HTTP handlers, so that no redirect leads to a file or to FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "lowpass"), ("Accept-Encoding", "identity")]
    if start:
        opener.addheaders.append(("Range", f"bytes={start}-"))
    return opener.open(url, timeout=TIMEOUT_SECONDS)


def _range_start(response: Any) -> int:
    """First byte of "Content-Range: bytes 5-9/10", or -1 where the header is not that."""
    unit, _, span = str(response.headers.get("Content-Range", "")).partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() else -1


def _copy(url: str, response: Any, stream: IO[bytes], size: int, bar: Any) -> None:
    while True:
        try:
            chunk = response.read(CHUNK_BYTES)
        except (OSError, http.client.HTTPException):
            return
        if not chunk:
            return
        if stream.tell() + len(chunk) > size:
            stream.truncate(0)
            raise DataError(f"{url}: longer than the {size} bytes expected; give --mirror or --from-file")
        stream.write(chunk)
        bar.update(len(chunk))


def _publish(draft: Path, target: Path) -> None:
    with draft.open("rb+") as stream:
        os.fsync(stream.fileno())
    draft.replace(target)
