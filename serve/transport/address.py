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


def take_path(option: str, address: str) -> Path | None:
    """Make sure that a Unix socket can be made, where the address names one: what a dead server left there is removed.

    Args:
        option: Named where it cannot.

    Returns:
        Its path, or None for another kind of address.

    Raises:
        AddressUnavailable: The address is malformed, a server listens there, it is no socket, or there is no directory.
    """
    found = read_address(option, address)
    if not isinstance(found, UnixPath):
        return None
    path = found.path
    if not path.parent.is_dir():
        raise AddressUnavailable(f"{option} {address}: its directory does not exist: make it first")
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AddressUnavailable(f"{option} {address}: is no socket: choose another path")
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(1.0)
            one.connect(str(path))
    except FileNotFoundError:
        return path
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return path
    except OSError as error:
        raise AddressUnavailable(f"{option} {address}: cannot be bound ({error.strerror or error})") from error
    raise AddressUnavailable(f"{option} {address}: in use by another server: choose another one")
