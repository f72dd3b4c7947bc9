"""The gateway's HTTP server: cheroot, with bounds on threads, header and body sizes, and slow callers."""

from __future__ import annotations

import threading
from typing import Any

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter

from serve.credentials import TlsFiles
from serve.errors import AddressUnavailable
from serve.options import split_address

MAX_HEADER_BYTES = 16 << 10
SLOW_CALLER = 2.0
"""Longest wait for the next byte of a request, in seconds: a caller holds a thread while it sends."""
THREADS = 16


class HttpServer:
    """A WSGI application on an address.

    Args:
        application: What answers.
        max_body_bytes: Largest request body.
        tls: Certificates; None for plain text. They are read once.
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
        """
        host, port = split_address("--http-address", address)
        server = wsgi.Server(
            (host, port), self._application, THREADS, server_name="lowpass", reuse_port=self._shares_port
        )
        server.max_request_header_size = MAX_HEADER_BYTES
        server.max_request_body_size = self._max_body_bytes
        server.timeout = SLOW_CALLER
        if self._tls is not None:
            tls = self._tls
            adapter = BuiltinSSLAdapter(str(tls.certificate), str(tls.key))
            if tls.client_authority is not None:
                adapter.context.load_verify_locations(str(tls.client_authority))
                adapter.context.verify_mode = 2  # ssl.CERT_REQUIRED, typed as a plain number there
            server.ssl_adapter = adapter
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
