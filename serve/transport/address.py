"""Addresses to listen on, as they are given on the command line."""

from __future__ import annotations

import ipaddress

from serve.answers.errors import AddressUnavailable


def split_address(option: str, address: str) -> tuple[str, int]:
    """Host and port.

    Args:
        option: Named where the address is wrong.
        address: HOST:PORT.

    Raises:
        AddressUnavailable: It is neither.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise AddressUnavailable(f"{option} {address}: must be HOST:PORT, e.g. 127.0.0.1:50051")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
