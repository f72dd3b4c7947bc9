"""Addresses to listen on, as they are given on the command line."""

from __future__ import annotations

import ipaddress
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from serve.answers.errors import AddressUnavailable

UNIX = "unix:"
LONGEST_PATH = 100
"""Of a Unix socket, in bytes; systems differ in what they allow, and 103 is the least."""


@dataclass(frozen=True)
class UnixPath:
    """A socket in the file system."""

    path: Path


def read_address(option: str, address: str) -> tuple[str, int] | UnixPath:
    """Host and port, or a path.

    Args:
        option: Named where the address is wrong.
        address: HOST:PORT with an IPv6 host in brackets, or unix:PATH.

    Raises:
        AddressUnavailable: It is neither.
    """
    if address.startswith(UNIX):
        path = address.removeprefix(UNIX).removeprefix("//")
        if not path or len(path.encode()) > LONGEST_PATH or "\0" in path:
            raise AddressUnavailable(f"{option} {address}: must be unix:PATH with a path of 1 to {LONGEST_PATH} bytes")
        return UnixPath(Path(path))
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise AddressUnavailable(
            f"{option} {address}: must be HOST:PORT, e.g. 127.0.0.1:50051 or [::1]:50051, or unix:PATH"
        )
    if host.startswith("[") != host.endswith("]") or (":" in host) != host.startswith("["):
        raise AddressUnavailable(f"{option} {address}: write an IPv6 address in brackets, e.g. [::1]:50051")
    return host.strip("[]"), int(port)


def split_address(option: str, address: str) -> tuple[str, int]:
    """Host and port, where a path will not do.

    Raises:
        AddressUnavailable: It is something else.
    """
    found = read_address(option, address)
    if isinstance(found, UnixPath):
        raise AddressUnavailable(f"{option} {address}: cannot be a Unix socket; give HOST:PORT")
    return found


def is_local(address: str) -> bool:
    """Whether only this machine reaches it."""
    found = read_address("", address)
    if isinstance(found, UnixPath):
        return True
    try:
        return ipaddress.ip_address(found[0]).is_loopback
    except ValueError:
        return found[0] == "localhost"


def clear_path(option: str, unix: UnixPath) -> None:
    """Remove the socket that a server left behind when it died.

    Raises:
        AddressUnavailable: A server listens there, or it is no socket, or there is no such directory.
    """
    said = f"{option} {UNIX}{unix.path}"
    if not unix.path.parent.is_dir():
        raise AddressUnavailable(f"{said}: its directory does not exist: make it first")
    try:
        if not stat.S_ISSOCK(unix.path.lstat().st_mode):
            raise AddressUnavailable(f"{said}: is no socket: choose another path")
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(1.0)
            one.connect(str(unix.path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        unix.path.unlink(missing_ok=True)
        return
    except OSError as error:
        raise AddressUnavailable(f"{said}: cannot be bound ({error.strerror or error})") from error
    raise AddressUnavailable(f"{said}: in use by another server: choose another one")
