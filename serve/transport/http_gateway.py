"""The gRPC methods as JSON over HTTP, for browsers and curl.

    POST /v1/recommend          a RecommendRequest in protobuf's JSON mapping, field names as in the proto
    GET  /v1/recommend?user_id=u7&k=5&history.item_ids=a&history.item_ids=b
    GET  /openapi.json, /healthz

A failure is `{"error": {"code": 404, "status": "NOT_FOUND", "message": …, "details": […]}}`, as Google's APIs have it.

`Gateway` is a WSGI application that knows messages and methods, and no server. `HttpServer` is cheroot around it, with
bounds on threads, on header and body sizes, and on slow callers.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from time import monotonic, perf_counter_ns
from typing import Any
from urllib.parse import parse_qsl

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from serve.answers.admission import Admission, Deadline
from serve.answers.call import Call
from serve.answers.errors import AddressUnavailable, FieldViolation, InvalidRequest, RequestError
from serve.answers.limits import Limits
from serve.rpc.credentials import Authorize, FollowedFiles, TlsFiles, server_context
from serve.rpc.interceptors import guard, refuse
from serve.rpc.services import AnyMethod, Method
from serve.rpc.status import Refusal, to_refusal
from serve.telemetry.logs import HEADER, request_id_of
from serve.telemetry.telemetry import Telemetry
from serve.transport.address import split_address

LOG = logging.getLogger("lowpass.http")
MAX_HEADER_BYTES = 16 << 10
SLOW_CALLER = 2.0
"""Longest wait for the next byte of a request, in seconds: a caller holds a thread while it sends."""
THREADS = 16
Environment = Mapping[str, Any]
Start = Callable[[str, list[tuple[str, str]]], Any]
PREFIX = "/v1/"
JSON = ("Content-Type", "application/json; charset=utf-8")

HTTP_STATUS: dict[int, str] = {
    code_pb2.INVALID_ARGUMENT: "400 Bad Request",
    code_pb2.FAILED_PRECONDITION: "400 Bad Request",
    code_pb2.UNAUTHENTICATED: "401 Unauthorized",
    code_pb2.NOT_FOUND: "404 Not Found",
    code_pb2.RESOURCE_EXHAUSTED: "429 Too Many Requests",
    code_pb2.CANCELLED: "499 Client Closed Request",
    code_pb2.INTERNAL: "500 Internal Server Error",
    code_pb2.UNAVAILABLE: "503 Service Unavailable",
    code_pb2.DEADLINE_EXCEEDED: "504 Gateway Timeout",
}
"""google.rpc code → HTTP status line, after google/rpc/code.proto."""


class _HttpError(Exception):
    """An answer that is no answer of a method."""

    def __init__(self, line: str, message: str) -> None:
        super().__init__(message)
        self.line = line


class Gateway:
    """A WSGI application over the methods of a service.

    Args:
        methods: Of the service; those that stream are left out.
        admission: Counts and refuses, as for gRPC.
        telemetry: Takes note of finished requests, under the methods' names.
        authorize: Says why a caller may not call; None lets everybody.
        is_serving: Whether the server is ready.
    """

    def __init__(
        self,
        methods: Sequence[AnyMethod],
        admission: Admission,
        limits: Limits,
        telemetry: Telemetry,
        authorize: Authorize | None,
        is_serving: Callable[[], bool],
    ) -> None:
        whole = [each for each in methods if isinstance(each, Method)]
        self._methods = {path_of(each.name): (each, guard(each, telemetry)) for each in whole}
        self._admission = admission
        self._limits = limits
        self._metrics = telemetry.metrics
        self._authorize = authorize
        self._is_serving = is_serving

    def __call__(self, environment: Environment, start: Start) -> Iterable[bytes]:
        """Answer one request."""
        arrival = perf_counter_ns()
        request_id = request_id_of([(HEADER, environment.get("HTTP_X_REQUEST_ID", ""))])
        headers = [JSON, ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        headers.append(("X-Request-Id", request_id))
        try:
            line, body = self._route(environment, arrival, request_id)
        except _HttpError as error:
            line = error.line
            body = _error_body(int(line.split()[0]), line.partition(" ")[2].upper().replace(" ", "_"), str(error))
        except Refusal as refusal:
            line, body = refused(refusal.status)
            pushback = dict(refusal.trailers).get("grpc-retry-pushback-ms")
            if pushback is not None:
                headers.append(("Retry-After", str(max(1, round(int(pushback) / 1000)))))
            if line.startswith("401"):
                headers.append(("WWW-Authenticate", "Bearer"))
        headers.append(("Content-Length", str(len(body))))
        start(line, headers)
        return [b"" if environment["REQUEST_METHOD"] == "HEAD" else body]

    def _route(self, environment: Environment, arrival: int, request_id: str) -> tuple[str, bytes]:
        path, verb = environment.get("PATH_INFO", ""), environment["REQUEST_METHOD"]
        if path == "/healthz":
            if not self._is_serving():
                raise _HttpError("503 Service Unavailable", "not serving")
            return "200 OK", b'{"status": "SERVING"}'
        if path == "/openapi.json":
            return "200 OK", resources.files("serve.transport").joinpath("openapi.json").read_bytes()
        if path not in self._methods:
            raise _HttpError("404 Not Found", f"no method at {path}; /openapi.json lists them")
        if verb not in {"GET", "HEAD", "POST"}:
            raise _HttpError("405 Method Not Allowed", f"{verb}: send GET or POST")
        return "200 OK", self._call(path, environment, arrival, request_id)

    def _call(self, path: str, environment: Environment, arrival: int, request_id: str) -> bytes:
        method, guarded = self._methods[path]
        self._admit(method, environment, arrival)
        self._admission.enter()
        try:
            request = self._read(method, environment)
            deadline = Deadline.of(monotonic(), self._limits.max_deadline, None)
            call = Call(arrival, deadline, lambda: True, perf_counter_ns(), request_id=request_id)
            call.metadata, call.protocol = _trace_headers(environment), "http_json"
            answer = guarded(request, call)
        finally:
            self._admission.leave()
        return _to_json(answer)

    def _admit(self, method: Method, environment: Environment, arrival: int) -> None:
        error: RequestError | None = None
        if self._authorize is not None:
            error = self._authorize([("authorization", environment.get("HTTP_AUTHORIZATION", ""))])
        error = error or self._admission.refusal()
        if error is not None:
            raise refuse(method.name, error, self._metrics, arrival)

    def _read(self, method: Method, environment: Environment) -> Message:
        request = method.request()
        try:
            if environment["REQUEST_METHOD"] == "POST":
                content = json.loads(self._body(environment) or b"{}")
            else:
                content = from_parameters(parse_qsl(environment.get("QUERY_STRING", ""), max_num_fields=1000), request)
            ParseDict(content, request)
        except (ParseError, ValueError, RecursionError) as error:
            said = str(error).splitlines()[0][:300]
            raise to_refusal(InvalidRequest(FieldViolation("body", f"cannot be read ({said})"))) from error
        return request

    def _body(self, environment: Environment) -> bytes:
        try:
            size = int(environment.get("CONTENT_LENGTH") or 0)
        except ValueError:
            size = 0
        if size > self._limits.max_message_bytes:
            raise _HttpError("413 Content Too Large", f"{size} bytes; send at most {self._limits.max_message_bytes}")
        body: bytes = environment["wsgi.input"].read(size)
        return body


def _trace_headers(environment: Environment) -> list[tuple[str, str | bytes]]:
    names = ("traceparent", "tracestate")
    found = ((name, environment.get(f"HTTP_{name.upper()}")) for name in names)
    return [(name, value) for name, value in found if value is not None]


def path_of(method: str) -> str:
    """Where a method is found: "BatchRecommend" at /v1/batchRecommend."""
    return PREFIX + method[0].lower() + method[1:]


def from_parameters(pairs: Iterable[tuple[str, str]], message: Message) -> dict[str, Any]:
    """Query parameters as the content of a message: `history.item_ids=a&history.item_ids=b`.

    Args:
        pairs: Field, dotted where it is inside another, and value.
        message: Says which fields repeat.

    Raises:
        ValueError: There is no such field.
    """
    content: dict[str, Any] = {}
    for name, text in pairs:
        place, descriptor = content, message.DESCRIPTOR
        *outer, last = name.split(".")
        for part in outer:
            field = descriptor.fields_by_name.get(part)
            if field is None or field.message_type is None or field.is_repeated:
                raise ValueError(f"no field {name!r}")
            place, descriptor = place.setdefault(part, {}), field.message_type
        field = descriptor.fields_by_name.get(last)
        if field is None or field.message_type is not None:
            raise ValueError(f"no field {name!r}")
        value: Any = text
        if field.cpp_type == field.CPPTYPE_BOOL:
            value = {"true": True, "1": True, "": True, "false": False, "0": False}.get(text.lower(), text)
        if field.is_repeated:
            place.setdefault(last, []).append(value)
        else:
            place[last] = value
    return content


def refused(status: status_pb2.Status) -> tuple[str, bytes]:
    """HTTP status line and body of a google.rpc.Status."""
    line = HTTP_STATUS.get(status.code, "500 Internal Server Error")
    details = []
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2], None)
        if kind is not None:
            detail = kind()
            packed.Unpack(detail)
            details.append({"@type": packed.type_url, **MessageToDict(detail, preserving_proto_field_name=True)})
    name = code_pb2.Code.Name(status.code)
    return line, _error_body(int(line.split()[0]), name, status.message, details)


def _error_body(code: int, status: str, message: str, details: Sequence[Mapping[str, Any]] = ()) -> bytes:
    error = {"code": code, "status": status, "message": message, "details": list(details)}
    return json.dumps({"error": error}, ensure_ascii=False).encode()


def _to_json(message: Message) -> bytes:
    content = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return json.dumps(content, ensure_ascii=False).encode()


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
