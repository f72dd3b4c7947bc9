"""The gateway's HTTP server: cheroot, with bounds on threads, header and body sizes, and slow callers."""

from __future__ import annotations

import logging
import ssl
import threading
from typing import Any

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter

from serve.answers.errors import AddressUnavailable
from serve.rpc.credentials import FollowedFiles, TlsFiles, server_context
from serve.transport.address import split_address

MAX_HEADER_BYTES = 16 << 10
SLOW_CALLER = 2.0
"""Longest wait for the next byte of a request, in seconds: a caller holds a thread while it sends."""
THREADS = 16


LOG = logging.getLogger("lowpass.http")


class _Server(wsgi.Server):
    """Says what it has to say as lines of this server's log."""

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Log a line."""
        LOG.log(level, msg, exc_info=traceback)


class _FollowingAdapter(BuiltinSSLAdapter):
    """TLS by what the files hold now."""

    def __init__(self, files: TlsFiles) -> None:
        self._contexts = FollowedFiles(files.paths, lambda: server_context(files))
        super().__init__(str(files.certificate), str(files.key))
        self.context, _ = self._contexts.current()

    def wrap(self, sock: Any) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """Speak TLS on an accepted connection."""
        context, is_new = self._contexts.current()
        if is_new:
            self.context = context
        wrapped: tuple[ssl.SSLSocket, dict[str, str]] = super().wrap(sock)  # type: ignore[no-untyped-call]
        return wrapped


class HttpServer:
    """A WSGI application on an address.

    Args:
        application: What answers.
        max_body_bytes: Largest request body.
        tls: Certificates; None for plain text. Files that change are used from the next connection.
        shares_port: Whether other processes of ours listen on the address too.
    """

    def __init__(
        self, application: Any, max_body_bytes: int, tls: TlsFiles | None = None, *, shares_port: bool = False
    ) -> None:
        self._application = application
        self._max_body_bytes = max_body_bytes
        self._tls = tls
        self._shares_port = shares_port
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def bind(self, address: str) -> str:
        """Take the address; returns the one really bound.

        Raises:
            AddressUnavailable: It is malformed, or somebody else has it.
            UnusableCredentials: The certificates are missing or wrong.
        """
        host, port = split_address("--http-address", address)
        server = _Server((host, port), self._application, THREADS, server_name="lowpass", reuse_port=self._shares_port)
        server.max_request_header_size = MAX_HEADER_BYTES
        server.max_request_body_size = self._max_body_bytes
        server.timeout = SLOW_CALLER
        if self._tls is not None:
            server.ssl_adapter = _FollowingAdapter(self._tls)
        try:
            server.prepare()
        except OSError as error:
            raise AddressUnavailable(f"--http-address {address}: cannot be bound: choose another one") from error
        self._server = server
        bound = server.bind_addr
        return f"{host}:{bound[1]}"

    def start(self) -> None:
        """Accept connections."""
        self._thread = threading.Thread(target=self._server.serve, name="lowpass-http", daemon=True)
        self._thread.start()

    def stop(self, grace: float) -> None:
        """Accept nothing more, let what is in flight end, close."""
        if self._server is None:
            return
        self._server.shutdown_timeout = grace
        self._server.stop()
        if self._thread is not None:
            self._thread.join()
