"""A real HTTP server on the loopback that serves files well, or badly on purpose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served, how badly, and what was asked for.

    Attributes:
        files: Path → content.
        redirects: Path → other URL.
        ranges: Whether Range is honoured.
        cut_after: Bodies stop after so many bytes, for `cuts` requests.
        cuts: How many more bodies to cut.
        asked: (path, Range header) of every request.
        url: Base URL.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cut_after: int = 0
    cuts: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve_files(state: FileServer) -> Iterator[FileServer]:
    """Serve `state` on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, state)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def _answer(handler: BaseHTTPRequestHandler, state: FileServer) -> None:
    asked_range = handler.headers.get("Range")
    state.asked.append((handler.path, asked_range))
    if handler.path in state.redirects:
        handler.send_response(302)
        handler.send_header("Location", state.redirects[handler.path])
        handler.end_headers()
        return
    if handler.path not in state.files:
        handler.send_error(404)
        return
    content = state.files[handler.path]
    start = int(asked_range.removeprefix("bytes=").rstrip("-")) if asked_range and state.ranges else 0
    if start >= len(content) > 0:
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(content) - start))
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    body = content[start:]
    if state.cuts:
        state.cuts -= 1
        body = body[: state.cut_after]
    handler.wfile.write(body)
