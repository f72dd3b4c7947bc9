"""Where Prometheus reads the series: HTTP on a few connections at once, each for a short time, whoever connects.

prometheus_client's own server starts a thread for each connection and waits for its request without end, so that idle
ones take threads and descriptors from those who ask for answers. Here the oldest connection that has not asked yet
makes way for a new one: a scraper asks as soon as it has connected, and is answered beside any number of others.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from math import inf
from socketserver import ThreadingTCPServer
from threading import Condition, Lock, Thread
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import WSGIApplication

from prometheus_client import CollectorRegistry, make_wsgi_app

from serve.answers.errors import AddressUnavailable

LOG = logging.getLogger("lowpass.serve")
AT_ONCE = 8
"""Connections; under `ulimit -n 64` most descriptors are then left to gRPC."""
ASK_WITHIN = 5.0
"""Longest time from connecting to the end of the request, in seconds; as long again to take the answer."""
PLACE_WITHIN = 1.0
"""Longest wait for a place while all connections are being answered, in seconds; then the new one is closed."""
LOOK_EVERY = 0.1
"""Seconds between looks at connections that are late, and at the order to stop."""


class MetricsEndpoint:
    """A registry over HTTP, at any path, in threads of its own; it serves once it is made.

    Args:
        host: Address to bind.
        port: Port to bind; 0 for any free one.
        registry: What to serve.

    Attributes:
        address: Host and port really bound.

    Raises:
        AddressUnavailable: The address cannot be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        try:
            family, *_, resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self._server = _Server(family, (str(resolved[0]), port), make_wsgi_app(registry))
        except OSError as error:
            raise AddressUnavailable(
                f"--metrics-address {host}:{port}: cannot be bound ({error.strerror}): choose another one"
            ) from error
        bound, port = self._server.server_address[:2]
        self.address = f"[{bound!s}]:{port}" if family == socket.AF_INET6 else f"{bound!s}:{port}"
        self._thread = Thread(target=self._server.serve_forever, args=(LOOK_EVERY,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port; nobody is waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._server.drop(until=time.monotonic())
        self._thread.join()


class _Server(ThreadingTCPServer):
    """Knows its connections: when each came, or `inf` once it has asked or was dropped."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], series: WSGIApplication) -> None:
        self.address_family = family
        self.series = series
        self.computing = Lock()
        self._open: dict[Any, float] = {}
        self._changed = Condition()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(LOOK_EVERY)  # No descriptor is free: the connection stays, and the loop would spin on it.
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the library's signature
        """Find a place for a connection, at the cost of the oldest that is silent."""
        with self._changed:
            if len(self._open) >= AT_ONCE:
                self.drop(until=min(self._open.values()))
            if not self._changed.wait_for(lambda: len(self._open) < AT_ONCE, PLACE_WITHIN):
                return False
            self._open[request] = time.monotonic()
        return True

    def has_asked(self, request: Any) -> None:
        """Let a connection stay until it is answered."""
        with self._changed:
            self._open[request] = inf

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and free its place."""
        super().shutdown_request(request)
        with self._changed:
            self._open.pop(request, None)
            self._changed.notify_all()

    def service_actions(self) -> None:
        """Drop the connections that are late."""
        self.drop(until=time.monotonic() - ASK_WITHIN)

    def drop(self, until: float) -> None:
        """Let the threads of connections end that came until then and are still silent."""
        with self._changed:
            for request in [each for each, came in self._open.items() if came <= until and came < inf]:
                self._open[request] = inf
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request of a connection, and closes it."""

    server: _Server

    def setup(self) -> None:
        """Bound each read, and all writes of the answer together."""
        self.request.settimeout(ASK_WITHIN)
        super().setup()

    def do_GET(self) -> None:
        """Send the series, without them for HEAD."""
        self.server.has_asked(self.request)
        told: list[Any] = []
        question = {
            "REQUEST_METHOD": "GET" if self.command == "HEAD" else self.command,
            "PATH_INFO": urlsplit(self.path).path,
            "QUERY_STRING": urlsplit(self.path).query,
            "HTTP_ACCEPT": self.headers.get("Accept", ""),
            "HTTP_ACCEPT_ENCODING": self.headers.get("Accept-Encoding", ""),
        }
        try:
            with self.server.computing:  # One at a time: whoever asks in a loop takes no more of the machine than one.
                body = b"".join(self.server.series(question, lambda *status: told.extend(status)))  # type: ignore[arg-type]
        except Exception:
            LOG.exception("defect in the series")
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        status, headers = told[:2]
        self.send_response(int(status.split()[0]))
        for name, value in [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_OPTIONS = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - named so by the library

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named so by the library
        """Log nothing."""
