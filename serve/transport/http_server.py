"""HTTP/1.1 on an address, for an application that answers whole requests: one asyncio loop in one thread waits.

A caller who sends slowly, reads slowly, or says nothing holds a socket and what it sent, never a thread. Connections
and the bytes held for them are bounded; where a bound is met, whoever has waited longest, or holds most, goes, so that
nobody is shut out by those who came before.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from serve.answers.errors import AddressUnavailable
from serve.rpc.credentials import FollowedFiles, TlsFiles, server_context
from serve.transport.address import UnixPath, read_address, take_path
from serve.transport.http_connection import Connection, HttpBounds
from serve.transport.http_messages import Application, HttpAnswer, Work, problem

LOG = logging.getLogger("lowpass.http")
RECEIVED_AT_ONCE = 16 << 10
"""Bytes taken from one connection before the others have their turn."""
BACKLOG = 1024
NO_DESCRIPTOR = 0.05
"""Where no connection can be taken, seconds until the next try."""


class HttpServer:
    """An application on an address.

    Args:
        threads: Threads that work on requests.
        prepare_thread: Called once in each of them.
        tls: Certificates; None for plain text. Files that change are used from the next connection.
        shares_port: Whether other processes of ours listen on the address too.
        option: That gives the address, named where it is wrong.
    """

    def __init__(
        self,
        application: Application,
        bounds: HttpBounds,
        threads: int = 4,
        prepare_thread: Callable[[], None] | None = None,
        tls: TlsFiles | None = None,
        *,
        shares_port: bool = False,
        option: str = "--http-address",
    ) -> None:
        self.application = application
        self.bounds = bounds
        self.buffer = memoryview(bytearray(RECEIVED_AT_ONCE))
        self.waiting: dict[object, Callable[[], object]] = {}
        self.held = 0
        self.is_stopping = False
        self._open: set[object] = set()
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="lowpass-http", initializer=prepare_thread)
        self._tls = tls
        self._shares_port = shares_port
        self._option = option
        self._contexts: FollowedFiles[ssl.SSLContext] | None = None
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._thread: threading.Thread | None = None

    def bind(self, address: str) -> str:
        """Take the address; returns the one really bound.

        Raises:
            AddressUnavailable: It is malformed, or somebody else has it.
            UnusableCredentials: The certificates are missing or wrong.
        """
        where, files = read_address(self._option, address), self._tls
        if files is not None:
            self._contexts = FollowedFiles(files.paths, lambda: server_context(files))
        self._path = take_path(self._option, address)
        try:
            self._listener = self._listen(where)
        except (OSError, UnicodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "no such host"
            text = f"{self._option} {address}: cannot be bound ({said}): choose another one"
            raise AddressUnavailable(text) from error
        self._listener.setblocking(False)
        return address if self._path is not None else f"{address.rpartition(':')[0]}:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Accept connections."""
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._stop: asyncio.Future[float] = self.loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(self._listener,), name="lowpass-http", daemon=True)
        self._thread.start()

    def stop(self, grace: float) -> None:
        """Accept nothing more, let what is in flight end, close."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self._stop.set_result, grace)
            self._thread.join()
            self.loop.close()
        if self._listener is not None:
            self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def work(self, work: Work, then: Callable[[HttpAnswer], None]) -> None:
        """Let a thread work, and go on in the loop with what comes of it."""

        def ended(done: Future[HttpAnswer]) -> None:
            # The loop has ended where the answer came after the grace of a stop.
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._go_on, done, then)

        self._workers.submit(work).add_done_callback(ended)

    def opened(self, connection: Connection) -> None:
        """It stands."""
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """It is no more."""
        self._open.discard(connection)

    def hold_less(self) -> None:
        """Where too many bytes are held, drop who holds most."""
        if self.held > max(self.bounds.held_bytes, self.bounds.body_bytes):
            holders = [each for each in self._open if isinstance(each, Connection)]
            max(holders, key=lambda each: each.held).drop()

    def _go_on(self, done: Future[HttpAnswer], then: Callable[[HttpAnswer], None]) -> None:
        if done.exception() is None:
            then(done.result())
        else:
            LOG.error("defect in the gateway", exc_info=done.exception())
            then(problem(500, "internal error"))

    def _listen(self, where: tuple[str, int] | UnixPath) -> socket.socket:
        family: socket.AddressFamily = socket.AF_UNIX
        place: Any = str(where.path) if isinstance(where, UnixPath) else None
        if not isinstance(where, UnixPath):
            family, *_, place = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        try:
            if family is not socket.AF_UNIX:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._shares_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family is socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(place)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def _run(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        accepting = self.loop.create_task(self._accept(listener))
        give_up = self.loop.time() + await self._stop
        self.is_stopping = True
        accepting.cancel()
        for each in list(self._open):
            if not (isinstance(each, Connection) and each.owes_an_answer):
                self._drop(each)
        while self._open and self.loop.time() < give_up:
            await asyncio.sleep(0.005)
        for each in list(self._open):
            self._drop(each)
        # A socket is closed in the turn after it was dropped.
        await asyncio.sleep(0)
        await asyncio.gather(accepting, *asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    def _drop(self, each: Any) -> None:
        drop: Callable[[], object] = each.drop if isinstance(each, Connection) else each.cancel
        drop()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await self.loop.sock_accept(listener)
            except OSError as error:
                LOG.warning("a connection could not be taken", extra={"fields": {"error": str(error)}})
                self._make_room()
                await asyncio.sleep(NO_DESCRIPTOR)
                continue
            if len(self._open) >= self.bounds.open_at_most and not self._make_room():
                accepted.close()
                continue
            # Each takes its own time, TLS and all.
            task = self.loop.create_task(self._open_connection(accepted))
            self._open.add(task)
            self.waiting[task] = task.cancel
            task.add_done_callback(partial(self._opened_or_not, accepted))

    def _make_room(self) -> bool:
        """Drop whoever has waited longest; whether there was anybody."""
        if not self.waiting:
            return False
        first = next(iter(self.waiting))
        self.waiting.pop(first)()
        return True

    async def _open_connection(self, accepted: socket.socket) -> None:
        secured: dict[str, Any] = {}
        if self._contexts is not None:
            secured = {"ssl": self._contexts.current()[0], "ssl_handshake_timeout": self.bounds.handshake}
        await self.loop.connect_accepted_socket(lambda: Connection(self), accepted, **secured)

    def _opened_or_not(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self.waiting.pop(task, None)
        self._open.discard(task)
        if task.cancelled() or isinstance(task.exception(), OSError):
            accepted.close()  # no TLS, not in time, or room was made
        elif task.exception() is not None:
            LOG.error("defect in the gateway", exc_info=task.exception())
            accepted.close()
