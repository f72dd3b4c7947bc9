"""HTTP/2 frames made by hand (RFC 9113, RFC 7541), for what no well-meant client sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from contextlib import suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
ACK, END_STREAM, END_HEADERS = 1, 1, 4
FIRST_DYNAMIC = 62
LARGEST_FRAME = 16 << 10


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """One frame."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _integer(value: int, bits: int, first: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def _text(text: bytes) -> bytes:
    return _integer(len(text), 7, 0) + text


def literal(name: bytes, value: bytes, *, remember: bool = False) -> bytes:
    """A header in full; remembered, it is the first of the dynamic table."""
    return (b"\x40" if remember else b"\x00") + _text(name) + _text(value)


def indexed(index: int) -> bytes:
    """A header of the tables, by its number."""
    return _integer(index, 7, 0x80)


def call_headers(path: str) -> bytes:
    """What a gRPC call begins with."""
    pairs = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    return b"".join(literal(name, value) for name, value in pairs)


def header_frames(stream: int, block: bytes, *, end_stream: bool = False) -> bytes:
    """HEADERS, and CONTINUATION where one frame does not hold the block."""
    pieces = [block[at : at + LARGEST_FRAME] for at in range(0, len(block), LARGEST_FRAME)]
    frames = []
    for number, piece in enumerate(pieces):
        flags = END_HEADERS if number == len(pieces) - 1 else 0
        if number == 0 and end_stream:
            flags |= END_STREAM
        frames.append(frame(CONTINUATION if number else HEADERS, flags, stream, piece))
    return b"".join(frames)


class RawConnection:
    """A connection that speaks HTTP/2, whose answers are counted and thrown away.

    Args:
        address: `host:port`.
        acknowledge: Whether it says that it read the server's settings, and waits until it has.

    Attributes:
        answered: Frames that came, by kind.
        is_closed: Whether the server closed it.
    """

    def __init__(self, address: str, *, acknowledge: bool = True) -> None:
        self._acknowledge = acknowledge
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        self.answered: dict[int, int] = {}
        self.is_closed = False
        self._acknowledged = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        # Until its settings are acknowledged, a server has to take what HTTP/2 allows by default.
        assert not acknowledge or self._acknowledged.wait(10)

    def send(self, frames: Iterable[bytes]) -> bool:
        """Send, as far as the server takes it; whether it took all."""
        try:
            for each in frames:
                self.socket.sendall(each)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Leave without a word."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.socket.close()

    def _read(self) -> None:
        try:
            stream = self.socket.makefile("rb")
            while len(header := stream.read(9)) == 9:
                body = stream.read(int.from_bytes(header[:3], "big"))
                kind, flags = header[3], header[4]
                self.answered[kind] = self.answered.get(kind, 0) + 1
                if kind == SETTINGS and not flags & ACK and self._acknowledge:
                    self.socket.sendall(frame(SETTINGS, ACK, 0))
                    self._acknowledged.set()
                if kind == PING and not flags & ACK:
                    self.socket.sendall(frame(PING, ACK, 0, body))
        except (OSError, ValueError):
            pass
        self.is_closed = True


def header_bomb(path: str, streams: int, names: int, value: bytes) -> Iterable[bytes]:
    """A few bytes that stand for many: each stream refers to remembered headers again and again.

    Args:
        streams: Calls, none of which ends.
        names: References in each.
        value: Of the remembered header.
    """
    for number in range(streams):
        remembered = literal(b"x", value, remember=True) if number == 0 else b""
        yield header_frames(2 * number + 1, call_headers(path) + remembered + indexed(FIRST_DYNAMIC) * names)
