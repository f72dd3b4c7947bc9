"""The gRPC methods as JSON over HTTP, for browsers and curl.

    POST /v1/recommend          a RecommendRequest in protobuf's JSON mapping, field names as in the proto
    GET  /v1/recommend?user_id=u7&k=5&history.item_ids=a&history.item_ids=b
    GET  /openapi.json, /healthz

`Gateway` knows messages and methods, and no server: `http_server` hands it requests that have arrived whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from importlib import resources
from time import monotonic, perf_counter_ns
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from serve.answers.admission import Admission, Deadline
from serve.answers.call import Call
from serve.answers.errors import FieldViolation, InvalidRequest, RequestError
from serve.answers.limits import Limits
from serve.rpc.credentials import Authorize
from serve.rpc.interceptors import Guarded, guard, refuse
from serve.rpc.services import AnyMethod, Method
from serve.rpc.status import Refusal, to_refusal
from serve.telemetry.logs import HEADER, request_id_of
from serve.telemetry.telemetry import Telemetry
from serve.transport.http_messages import ALWAYS, Header, HttpAnswer, HttpRequest, Work, problem, refused

PREFIX = "/v1/"
READS, CALLS = "GET, HEAD", "GET, HEAD, POST"
MAX_PARAMETERS = 1000
SAID_AT_MOST = 300


class _Problem(Exception):
    """The request names no call."""

    def __init__(self, status: int, message: str, *headers: Header) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class Gateway:
    """An `Application` over the methods of a service.

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

    def begin(self, request: HttpRequest) -> HttpAnswer | Work:
        """Answer at once, or count the call as load until the rest is done; see `Application`."""
        request_id = request_id_of([(HEADER, request.headers.get(HEADER, ""))])
        try:
            path, query = _split(request.target)
            if path not in self._methods:
                return _answer(request_id, 200, self._document(path, request.verb))
            if request.verb not in CALLS.split(", "):
                raise _Problem(405, f"{request.verb}: send GET or POST", ("Allow", CALLS))
            if request.headers.get("content-encoding", "identity").lower() != "identity":
                raise _Problem(415, "Content-Encoding: send the body as it is", ("Accept-Encoding", "identity"))
            method, guarded = self._methods[path]
            self._admit(method, request)
        except _Problem as wrong:
            return problem(wrong.status, str(wrong), ("X-Request-Id", request_id), *wrong.headers)
        except Refusal as refusal:
            return _turned_away(request_id, refusal)
        self._admission.enter()
        return partial(self._call, method, guarded, request, query, request_id)

    def _document(self, path: str, verb: str) -> bytes:
        if path not in {"/healthz", "/openapi.json"}:
            shown = path[:SAID_AT_MOST].encode("unicode_escape").decode()
            raise _Problem(404, f"no method at {shown}; /openapi.json lists them")
        if verb not in READS.split(", "):
            raise _Problem(405, f"{verb}: send GET", ("Allow", READS))
        if path == "/openapi.json":
            return _description()
        if not self._is_serving():
            raise _Problem(503, "not serving")
        return b'{"status": "SERVING"}'

    def _admit(self, method: Method, request: HttpRequest) -> None:
        error: RequestError | None = None
        if self._authorize is not None:
            error = self._authorize([("authorization", request.headers.get("authorization", ""))])
        error = error or self._admission.refusal()
        if error is not None:
            raise refuse(method.name, error, self._metrics, request.arrival_ns)

    def _call(self, method: Method, guarded: Guarded, request: HttpRequest, query: str, request_id: str) -> HttpAnswer:
        try:
            if not request.is_active():
                self._metrics.rejected("abandoned")
                return _answer(request_id, 200, b"")  # for nobody
            message = _read(method, request, query)
            arrived_at = monotonic() - (perf_counter_ns() - request.arrival_ns) * 1e-9
            deadline = Deadline.of(arrived_at, self._limits.max_deadline, None)
            call = Call(request.arrival_ns, deadline, request.is_active, perf_counter_ns(), request_id=request_id)
            call.metadata, call.protocol = _trace_headers(request), "http_json"
            return _answer(request_id, 200, _to_json(guarded(message, call)))
        except Refusal as refusal:
            return _turned_away(request_id, refusal)
        finally:
            self._admission.leave()


@cache
def _description() -> bytes:
    return resources.files("serve.transport").joinpath("openapi.json").read_bytes()


def _split(target: str) -> tuple[str, str]:
    try:
        parts = urlsplit(target)
        return unquote(parts.path, errors="strict"), parts.query
    except ValueError as error:
        raise _Problem(400, "the address cannot be read") from error


def _answer(request_id: str, status: int, body: bytes, *headers: Header) -> HttpAnswer:
    return HttpAnswer(status, (*ALWAYS, ("X-Request-Id", request_id), *headers), body)


def _turned_away(request_id: str, refusal: Refusal) -> HttpAnswer:
    status, body = refused(refusal.status)
    headers = []
    pushback = dict(refusal.trailers).get("grpc-retry-pushback-ms")
    if pushback is not None:
        headers.append(("Retry-After", str(max(1, round(int(pushback) / 1000)))))
    if status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    return _answer(request_id, status, body, *headers)


def _read(method: Method, request: HttpRequest, query: str) -> Message:
    message = method.request()
    try:
        if request.verb == "POST":
            content = json.loads(request.body or b"{}", object_pairs_hook=_once)
        else:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
            content = from_parameters(pairs, message)
        check_objects(content, message.DESCRIPTOR)
        ParseDict(content, message)
    # The parsers have no error in common: what they cannot read raises anything, RecursionError and SystemError too.
    except Exception as error:
        # What was sent stands in the text, and need not be text.
        said = str(error).encode(errors="backslashreplace").decode().strip() or type(error).__name__
        place = "body" if request.verb == "POST" else "query"
        raise to_refusal(
            InvalidRequest(FieldViolation(place, f"cannot be read ({said.splitlines()[0][:SAID_AT_MOST]})"))
        ) from error
    return message


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a field is given twice")
    return content


def check_objects(content: Any, descriptor: Any) -> None:
    """Refuse what is no object where a message must be; protobuf's own reader takes `[]` and `""` for an empty one.

    Args:
        content: As read from JSON.
        descriptor: Of the message.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{descriptor.name} must be an object")  # a caller's slip, not ours
    for name, value in content.items():
        name.encode()  # a surrogate alone is no text, and protobuf's reader says so in words of its own
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        if field is None or field.message_type is None or value is None:
            continue
        for each in value if field.is_repeated and isinstance(value, list) else [value]:
            check_objects(each, field.message_type)


def _trace_headers(request: HttpRequest) -> list[tuple[str, str | bytes]]:
    return [(name, request.headers[name]) for name in ("traceparent", "tracestate") if name in request.headers]


def path_of(method: str) -> str:
    """Where a method is found: "BatchRecommend" at /v1/batchRecommend."""
    return PREFIX + method[0].lower() + method[1:]


def from_parameters(pairs: Iterable[tuple[str, str]], message: Message) -> dict[str, Any]:
    """Query parameters as the content of a message: `history.item_ids=a&history.item_ids=b`.

    Args:
        pairs: Field, dotted where it is inside another, and value.
        message: Says which fields repeat.

    Raises:
        ValueError: There is no such field, or one that does not repeat is given twice.
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
        elif last in place:
            raise ValueError(f"{name} is given twice")
        else:
            place[last] = value
    return content


def _to_json(message: Message) -> bytes:
    content = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return json.dumps(content, ensure_ascii=False).encode()
