"""An address that several processes of ours listen on, and nobody else."""

from __future__ import annotations

import errno
import socket

from serve.answers.errors import AddressUnavailable
from serve.transport.address import UNIX, split_address

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class SharedPort:
    """Holds an address while workers listen on it; it listens to nothing itself, so no connection comes here.

    It is taken alone, so that a single server or other workers that have it make this fail. Only then it is opened to
    sockets of the same user with SO_REUSEPORT, as workers have; a single server has none, and is refused.

    Args:
        option: Named where the address is wrong.
        address: HOST:PORT, with port 0 for any free one.

    Attributes:
        address: The one really held.

    Raises:
        AddressUnavailable: It is malformed, or somebody else has it.
    """

    def __init__(self, option: str, address: str) -> None:
        if address.startswith(UNIX):
            raise AddressUnavailable(
                f"{option} {address}: workers share a port, not a Unix socket; leave out --workers"
            )
        host, port = split_address(option, address)
        self._sockets: list[socket.socket] = []
        try:
            # A name may stand for an IPv4 and an IPv6 address, and servers listen on both.
            for family, *_, resolved in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                self._hold(family, (str(resolved[0]), port, *resolved[2:]))
                port = self._sockets[0].getsockname()[1] if self._sockets else port
        except OSError as error:
            self.close()
            raise AddressUnavailable(
                f"{option} {address}: cannot be bound ({error.strerror}): choose another one"
            ) from error
        if not self._sockets:
            raise AddressUnavailable(f"{option} {address}: no address of this machine: choose another one")
        self.address = f"{address.rpartition(':')[0]}:{port}"

    def _hold(self, family: int, address: tuple[object, ...]) -> None:
        holder = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(holder)
        # Connections of earlier servers that linger in TIME_WAIT do not count as somebody who has it.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(address)
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise
            self._sockets.remove(holder)
            holder.close()
            return
        # Others who take it alone do the same up to here: with this cleared, the second of two fails.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def close(self) -> None:
        """Hold it no longer."""
        for holder in self._sockets:
            holder.close()
        self._sockets.clear()
