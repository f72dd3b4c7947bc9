"""Public data sets: a catalogue of files with checksums, fetched by HTTPS or taken from a copy at hand.

Every size and SHA-256 was computed from a copy of the file at the commit in its URL, and every file is checked against
them. A file is written to `NAME.part`, checked, flushed and renamed; what is left of a cut download is resumed.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from distill.data.prepare import PrepareOptions
from distill.errors import DataError

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 3
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class CatalogFile:
    """One file of a set.

    Attributes:
        name: File name in the folder it is fetched into.
        url: Where it is, at a fixed commit.
        sha256: Hex digest of its content.
        size: Bytes.
    """

    name: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class CatalogEntry:
    """A public data set.

    Attributes:
        name: As in `lowpass data fetch NAME`.
        description: One line, for the list of sets.
        format_name: A key of `readers.READERS`.
        options: How it is usually prepared.
        licence: What is known about the terms of use.
        files: All that the reader needs.
    """

    name: str
    description: str
    format_name: str
    options: PrepareOptions
    licence: str
    files: tuple[CatalogFile, ...]


def find_entry(name: str) -> CatalogEntry:
    """Return the entry of that name.

    Raises:
        DataError: There is none.
    """
    if name not in CATALOG:
        raise DataError(f"no data set '{name}' in the catalogue; it has {', '.join(CATALOG)}")
    return CATALOG[name]


def fetch(entry: CatalogEntry, directory: Path, *, mirror: str | None = None) -> list[Path]:
    """Download the files of `entry` that are not in `directory` yet.

    Args:
        entry: Of `CATALOG`.
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


_CITEULIKE = "https://raw.githubusercontent.com/js05212/citeulike-t/4f103c6ea0fe407b23be230837b65517e613c34a"
_LIGHTGCNPP = "https://raw.githubusercontent.com/geon0325/LightGCNpp/a394f79a7aceb8f485f6bcb549b4865fe83f1d49"
_LIGHTGCN = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/947ca2b3b1d2d3545b114145710cb06c4e57b3d2"
_RECBOLE = "https://raw.githubusercontent.com/RUCAIBox/RecBole/7b02be5ec80a88310f2d04a27a82adfcbb5dc211"
_ENTRIES = (
    CatalogEntry(
        name="citeulike-t",
        description="researchers and the articles in their libraries; 5,219 users, 25,181 items",
        format_name="citeulike",
        options=PrepareOptions(user_minimum=5, split="ordered"),
        licence="the repository states none; ask its authors before other use than research",
        files=(
            CatalogFile(
                "users.dat",
                f"{_CITEULIKE}/users.dat",
                "02d5d429b2c0362e0ed79f6ef204666b4092563d21493abf4dfb521e8a7078bf",
                770_649,
            ),
        ),
    ),
    CatalogEntry(
        name="gowalla",
        description="check-ins at places, LightGCN's split; 29,858 users, 40,981 items",
        format_name="lightgcn",
        options=PrepareOptions(split="ready"),
        licence="the repositories state none; those of the original data set apply",
        files=(
            CatalogFile(
                "train.txt",
                f"{_LIGHTGCNPP}/data/gowalla/train.txt",
                "d47e01d060624f389956c0b2f89a1ed8c453ea158631cd2b5320c241f3e1a073",
                4_132_444,
            ),
            CatalogFile(
                "valid.txt",
                f"{_LIGHTGCNPP}/data/gowalla/valid.txt",
                "ddc22c1cd9a7d14fd5cd0c98b1473b614f4323038fef74ae0d28cc9c92a08ba2",
                669_008,
            ),
            CatalogFile(
                "test.txt",
                f"{_LIGHTGCNPP}/data/gowalla/test.txt",
                "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
                1_372_559,
            ),
            CatalogFile(
                "user_list.txt",
                f"{_LIGHTGCN}/data/gowalla/user_list.txt",
                "5344c4d0deef610e1f148f23ad216a0db03b36f88834cd39a06786a672c5f5a1",
                351_203,
            ),
            CatalogFile(
                "item_list.txt",
                f"{_LIGHTGCN}/data/gowalla/item_list.txt",
                "6b186f92890cc3f0c15a6dae5d6285f125a302bb8c5ea0cd9a16cf9c16347139",
                506_926,
            ),
        ),
    ),
    CatalogEntry(
        name="ml-100k",
        description="MovieLens ratings of 4 and more, with titles; 938 users, 1,447 items",
        format_name="recbole",
        options=PrepareOptions(rating_minimum=4, user_minimum=5, split="temporal"),
        licence="GroupLens terms: no redistribution, no commercial use without permission; see grouplens.org",
        files=(
            CatalogFile(
                "ml-100k.inter",
                f"{_RECBOLE}/dataset/ml-100k/ml-100k.inter",
                "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                1_979_230,
            ),
            CatalogFile(
                "ml-100k.item",
                f"{_RECBOLE}/dataset/ml-100k/ml-100k.item",
                "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
                66_632,
            ),
        ),
    ),
    CatalogEntry(
        name="ml-1m",
        description="MovieLens, split by the LightGCN++ authors, numbers for ids; 6,039 users, 3,628 items",
        format_name="lightgcn",
        options=PrepareOptions(split="ready"),
        licence="GroupLens terms: no redistribution, no commercial use without permission; see grouplens.org",
        files=(
            CatalogFile(
                "train.txt",
                f"{_LIGHTGCNPP}/data/ml-1m/train.txt",
                "dfa3a7a866feade29ca5722ac0423c1b0317ac1f6ad38a55fc1a7ceeb9cee3bb",
                2_499_831,
            ),
            CatalogFile(
                "valid.txt",
                f"{_LIGHTGCNPP}/data/ml-1m/valid.txt",
                "429fe0d750b304677898d7eeb1080764bbf06550b94c9508b8cc8cd0573e3dfc",
                367_878,
            ),
            CatalogFile(
                "test.txt",
                f"{_LIGHTGCNPP}/data/ml-1m/test.txt",
                "0d58f78bbf606f401aec2efe3f519b945c458c8398955f986e03b880fbbd16a6",
                718_939,
            ),
        ),
    ),
)
CATALOG: dict[str, CatalogEntry] = {entry.name: entry for entry in _ENTRIES}


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
