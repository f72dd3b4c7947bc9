"""One HTTP/1.1 connection: h11 reads and writes, its server's loop waits, and only a whole request is begun.

Each request has a total time to arrive in, however its bytes are spread, each answer one to be read in, and the
connection one to be idle in. Whatever can be refused in words is, in the form of every failure (`problem`).
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from time import perf_counter_ns
from typing import Any, Protocol

import h11

from serve.transport.http_messages import REASONS, Application, HttpAnswer, HttpRequest, Work, problem

LOG = logging.getLogger("lowpass.http")
LEAST_CHUNK, FREE_CHUNKS = 64, 64
"""A chunk of a body holds so many bytes on average, beyond the first ones: each costs a look, however small it is."""


@dataclass(frozen=True)
class HttpBounds:
    """What callers may cost.

    Args:
        body_bytes: Largest body of a request.
        header_bytes: Largest request line and headers.
        arrival: Longest time for a request to arrive in, header and body, in seconds.
        idle: Longest time between two requests of a connection.
        handshake: Longest time of a TLS handshake.
        sending: Longest time for an answer to be read in.
        linger: How long, after a refusal before its end, the rest of a request is thrown away: a caller who finds the
            connection closed while it sends may never read why.
        connections: At a time; no more than a quarter of the descriptors that the process may have.
        held_bytes: Of bodies that have not arrived whole and answers that have not been read, of all connections.
    """

    body_bytes: int = 1 << 20
    header_bytes: int = 16 << 10
    arrival: float = 10.0
    idle: float = 30.0
    handshake: float = 5.0
    sending: float = 30.0
    linger: float = 1.0
    connections: int = 1000
    held_bytes: int = 64 << 20

    @property
    def open_at_most(self) -> int:
        """Connections at a time, by the descriptors that there are."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return self.connections if descriptors < 0 else max(1, min(self.connections, descriptors // 4))


class Host(Protocol):
    """What a connection needs of its server.

    Attributes:
        buffer: Where what comes is put; it is read at once, so that all connections share one.
        waiting: Who waits for a caller, and how to end that, in the order in which they began.
        held: Bytes held for all connections.
    """

    loop: asyncio.AbstractEventLoop
    application: Application
    bounds: HttpBounds
    buffer: memoryview
    waiting: dict[object, Callable[[], object]]
    held: int
    is_stopping: bool

    def work(self, work: Work, then: Callable[[HttpAnswer], None]) -> None:
        """Let a thread work, and go on in the loop with what comes of it."""
        ...

    def opened(self, connection: Connection) -> None:
        """It stands."""
        ...

    def closed(self, connection: Connection) -> None:
        """It is no more."""
        ...

    def hold_less(self) -> None:
        """More is held than before."""
        ...


class _Phase(Enum):
    IDLE = "nothing of a request has come"
    ARRIVING = "a part of a request has come"
    WORKING = "a thread works on it"
    SENDING = "the answer is being read"
    ENDING = "refused; what still comes is thrown away"


class Connection(asyncio.BufferedProtocol):
    """One caller.

    Args:
        host: Its server, on whose loop all of this runs.

    Attributes:
        held: Bytes in memory for it.
    """

    def __init__(self, host: Host) -> None:
        self.held = 0
        self._host = host
        self._bounds = host.bounds
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=host.bounds.header_bytes)
        self._transport: Any = None
        self._phase = _Phase.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._chunks = self._ahead = 0
        self._is_lost = self._is_unread = self._is_last = self._is_behind = False

    @property
    def owes_an_answer(self) -> bool:
        """Whether it is worth waiting for when the server stops."""
        return self._phase in {_Phase.WORKING, _Phase.SENDING}

    def connection_made(self, transport: Any) -> None:
        """The connection, and TLS on it, stand."""
        self._transport = transport
        self._host.opened(self)
        # Else an answer counts as sent while some of it is still here.
        transport.set_write_buffer_limits(high=1, low=0)
        self._wait(_Phase.IDLE, self._bounds.arrival)

    def connection_lost(self, _error: Exception | None) -> None:
        """The caller left, or was left."""
        self._is_lost = True
        self._hold(0)
        self._stop_waiting()
        self._host.closed(self)

    def get_buffer(self, _size: int) -> memoryview:
        """Where to put what has come."""
        return self._host.buffer

    def buffer_updated(self, count: int) -> None:
        """Something has come."""
        if self._phase is _Phase.ENDING:
            return
        self._http.receive_data(bytes(self._host.buffer[:count]))
        if self.owes_an_answer or self._is_behind:
            self._ahead += count
            if self._ahead > self._bounds.header_bytes:
                self._transport.pause_reading()
            return
        if self._phase is _Phase.IDLE:
            self._wait(_Phase.ARRIVING, self._bounds.arrival)
        self._advance()

    def eof_received(self) -> None:
        """The caller has closed its side. Who does so before the answer has left: nobody goes on working for it."""

    def pause_writing(self) -> None:
        """The caller reads more slowly than it is sent to."""
        self._is_unread = True

    def resume_writing(self) -> None:
        """The caller has read all."""
        self._is_unread = False
        if self._phase is _Phase.SENDING:
            self._sent()
            self._advance()

    def drop(self) -> None:
        """End it at once."""
        self._is_lost = True
        self._hold(0)
        self._stop_waiting()
        self._transport.abort()

    def _advance(self) -> None:
        """Go through what has come, a request each time: callers who send many at once take turns with the others."""
        self._is_behind = False
        try:
            while self._phase in {_Phase.IDLE, _Phase.ARRIVING} and not self._is_lost:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._ahead = 0
                    self._transport.resume_reading()
                    if self._http.they_are_waiting_for_100_continue:
                        self._transport.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
                    return
                if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    self._end(0.0)
                    return
                self._take(event)
                if isinstance(event, h11.EndOfMessage):
                    self._is_behind = True
                    self._host.loop.call_soon(self._advance)
                    return
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint if error.error_status_hint in REASONS else 400
            self._refuse(status, f"this is not HTTP as it must be: {error}")

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._request = event
            self._check_head(event)
        elif isinstance(event, h11.Data):
            self._body += event.data
            self._chunks += event.chunk_start
            self._hold(len(self._body))
            self._check_size(len(self._body))
            if self._chunks > FREE_CHUNKS + len(self._body) / LEAST_CHUNK:
                self._refuse(400, f"chunks of less than {LEAST_CHUNK} bytes; send larger ones")
        elif self._request is not None:
            self._begin(self._request)

    def _check_head(self, request: h11.Request) -> None:
        names = [name for name, _ in request.headers]
        size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
        if size > self._bounds.header_bytes:
            self._refuse(431, f"{size} bytes before the body; send at most {self._bounds.header_bytes}")
        elif request.http_version not in {b"1.0", b"1.1"}:
            self._refuse(505, "send HTTP/1.1")
        elif b"content-length" in names and b"transfer-encoding" in names:
            self._refuse(400, "both Content-Length and Transfer-Encoding: where the body ends is not clear; send one")
        else:
            # h11 lets no two lengths through.
            self._check_size(next((int(value) for name, value in request.headers if name == b"content-length"), 0))

    def _check_size(self, size: int) -> None:
        if size > self._bounds.body_bytes:
            self._refuse(413, f"{size} bytes; send at most {self._bounds.body_bytes}")

    def _begin(self, head: h11.Request) -> None:
        self._stop_waiting()
        self._phase = _Phase.WORKING
        headers: dict[str, str] = {}
        for raw, content in head.headers:
            name, value = raw.decode("latin-1"), content.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        verb, target = head.method.decode("latin-1"), head.target.decode("latin-1")
        body = bytes(self._body)
        self._body.clear()
        self._hold(0)
        request = HttpRequest(verb, target, headers, body, perf_counter_ns(), lambda: not self._is_lost)
        try:
            begun = self._host.application.begin(request)
        except Exception:
            LOG.exception("defect in the gateway")
            begun = problem(500, "internal error")
        if isinstance(begun, HttpAnswer):
            self._send(begun)
        else:
            self._host.work(begun, self._answered)

    def _answered(self, answer: HttpAnswer) -> None:
        """A thread is done."""
        if not self._is_lost:
            self._send(answer)
            self._advance()

    def _send(self, answer: HttpAnswer) -> None:
        self._is_last = self._host.is_stopping
        self._write(answer)
        self._phase = _Phase.SENDING
        if self._is_unread:
            self._hold(len(answer.body))
            self._wait(_Phase.SENDING, self._bounds.sending)
        else:
            self._sent()

    def _write(self, answer: HttpAnswer) -> None:
        if self._is_lost:
            return
        headers = [*answer.headers, ("Content-Length", str(len(answer.body))), ("Server", "lowpass")]
        if self._is_last:
            headers.append(("Connection", "close"))
        reason = REASONS[answer.status].encode()
        parts = [self._http.send(h11.Response(status_code=answer.status, reason=reason, headers=headers))]
        # To a HEAD, all but the body is said.
        if self._request is None or self._request.method != b"HEAD":
            parts.append(self._http.send(h11.Data(data=answer.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._request = None
        self._transport.write(b"".join(part for part in parts if part))

    def _sent(self) -> None:
        """Be there for the next request, some of which may have come."""
        self._hold(0)
        self._stop_waiting()
        if self._is_last or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self._end(0.0)
            return
        self._http.start_next_cycle()
        self._chunks = 0
        if self._http.trailing_data[0]:
            self._wait(_Phase.ARRIVING, self._bounds.arrival)
        else:
            self._wait(_Phase.IDLE, self._bounds.idle)

    def _refuse(self, status: int, message: str) -> None:
        """Say why the rest of what comes is not looked at."""
        if self._phase is _Phase.ENDING:
            return
        self._body.clear()
        self._hold(0)
        self._is_last = True
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._write(problem(status, message))
        self._end(self._bounds.linger)

    def _end(self, after: float) -> None:
        """Close in some seconds, once all that was said is sent."""
        if after:
            self._wait(_Phase.ENDING, after)
            return
        self._wait(_Phase.ENDING, self._bounds.sending)
        self._is_last = True
        self._transport.close()

    def _late(self) -> None:
        """Time is up for whatever it waited for."""
        if self._phase is _Phase.ARRIVING:
            self._refuse(408, f"the request did not arrive within {self._bounds.arrival:g} seconds")
        elif (self._phase is _Phase.ENDING and not self._transport.is_closing()) or self._phase is _Phase.IDLE:
            self._end(0.0)
        else:
            self.drop()

    def _wait(self, phase: _Phase, seconds: float) -> None:
        """Wait for the caller; who waits may be dropped for others, the longest first."""
        if self._timer is not None:
            self._timer.cancel()
        self._phase = phase
        self._host.waiting.setdefault(self, self.drop)
        self._timer = self._host.loop.call_later(seconds, self._late)

    def _stop_waiting(self) -> None:
        self._host.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hold(self, count: int) -> None:
        self._host.held += count - self.held
        grows, self.held = count > self.held, count
        if grows:
            self._host.hold_less()
