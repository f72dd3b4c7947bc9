"""What the console answers: its files, what the services say as JSON, and documents that are made when asked for.

    GET  /, /console.css, /*.js         the page
    GET  /v1/overview, /v1/jobs, /v1/frontier
    POST /v1/recommend, …               the methods of the recommender service, and ListModels
    POST /v1/setLabel, …                the methods of the admin service that change something

Methods are those of `http_gateway`; here stands only what a browser needs beside: which origin asks, and headers.
Nothing is taken from the query of an address, since addresses are logged and remembered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import PurePath
from typing import Any

from serve.answers.errors import RequestError
from serve.console.access import LOOPBACK, Access, is_from_elsewhere, is_ours, is_same_origin
from serve.rpc.status import to_status
from serve.transport.http_gateway import Gateway
from serve.transport.http_messages import ALWAYS, Header, HttpAnswer, HttpRequest, Work, problem, refused

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
SECURED: tuple[Header, ...] = (
    ("Content-Security-Policy", POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE = "index.html"
API = "/v1/"


def page_files() -> dict[str, HttpAnswer]:
    """The files of the page by their path."""
    found = {}
    for each in resources.files("serve.console").joinpath("page").iterdir():
        kind = KINDS.get(PurePath(each.name).suffix)
        if kind is not None:
            headers = tuple(
                ("Content-Type", kind) if name == "Content-Type" else (name, value) for name, value in ALWAYS
            )
            found["/" if each.name == PAGE else f"/{each.name}"] = HttpAnswer(200, headers, each.read_bytes())
    return found


class _Turned(Exception):
    """The request is turned away before anything is asked."""

    def __init__(self, status: int, message: str, *headers: Header) -> None:
        super().__init__(message)
        self.answer = problem(status, message, *headers)


@dataclass(frozen=True)
class Console:
    """An `Application`.

    Args:
        methods: Path → the gateway that answers it.
        changes: Those of them that change something.
        documents: Path → what makes the answer, on a thread, told whether the caller may change anything.
        access: Who may look, and who change.
        scheme: "http" or "https".
        is_local: Whether only this machine reaches it: then it is called by names of this machine alone.
        refused: Told of each request that showed no valid key.
    """

    methods: Mapping[str, Gateway]
    changes: frozenset[str]
    documents: Mapping[str, Callable[[bool], Any]]
    access: Access
    scheme: str
    is_local: bool
    refused: Callable[[], None] = lambda: None
    files: Mapping[str, HttpAnswer] = field(default_factory=page_files)

    def begin(self, request: HttpRequest) -> HttpAnswer | Work:
        """Answer at once, or say what is left to do; see `Application`."""
        try:
            begun = self._begin(request)
        except _Turned as turned:
            return _secured(turned.answer)
        if isinstance(begun, HttpAnswer):
            return _secured(begun)
        return lambda: _secured(begun())

    def _begin(self, request: HttpRequest) -> HttpAnswer | Work:
        if not is_ours(request.headers, names=LOOPBACK if self.is_local else frozenset()):
            raise _Turned(421, "this address is called localhost, 127.0.0.1 or [::1], and by no other name")
        path, question, _ = request.target.partition("?")
        if question:
            raise _Turned(400, "send what you ask in the body: addresses are logged and remembered")
        if not path.startswith(API):
            return self._file(path, request.verb)
        self._check_call(path, request)
        shown = [("authorization", request.headers.get("authorization", ""))]
        error = self.access.may_look(shown)
        if error is not None:
            self.refused()
            return HttpAnswer(*_refused(error, ("WWW-Authenticate", "Bearer")))
        if path in self.documents:
            return partial(self._document, path, self.access.may_change(shown) is None)
        if path in self.changes and self.access.may_change(shown) is not None:
            raise _Turned(403, "this key may look, not change: that needs one of --admin-api-keys")
        return self.methods[path].begin(request)

    def _file(self, path: str, verb: str) -> HttpAnswer:
        found = self.files.get(path)
        if found is None:
            raise _Turned(404, "there is nothing here; the page is at /")
        if verb not in {"GET", "HEAD"}:
            raise _Turned(405, "send GET", ("Allow", "GET, HEAD"))
        return found

    def _check_call(self, path: str, request: HttpRequest) -> None:
        if is_from_elsewhere(request.headers):
            raise _Turned(403, "a page of another origin may not ask here")
        if path not in self.documents and path not in self.methods:
            raise _Turned(404, "there is no such method here")
        verb = "GET" if path in self.documents else "POST"
        if request.verb != verb:
            raise _Turned(405, f"send {verb}", ("Allow", verb))
        if path in self.changes and not is_same_origin(request.headers, scheme=self.scheme):
            raise _Turned(403, "changes are for the console's own page; programs use --admin-address")

    def _document(self, path: str, may_change: bool) -> HttpAnswer:
        try:
            content = self.documents[path](may_change)
        except RequestError as error:
            return HttpAnswer(*_refused(error))
        return HttpAnswer(200, ALWAYS, json.dumps(content, ensure_ascii=False, allow_nan=False).encode())


def _refused(error: RequestError, *headers: Header) -> tuple[int, tuple[Header, ...], bytes]:
    status, body = refused(to_status(error))
    return status, (*ALWAYS, *headers), body


def _secured(answer: HttpAnswer) -> HttpAnswer:
    return HttpAnswer(answer.status, (*answer.headers, *SECURED), answer.body)
