"""The gateway under random requests: every answer is JSON, and every failure a documented one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.process.options import ServerOptions
from serve.process.server import Server
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.transport.http_gateway import path_of
from serve.transport.http_messages import REASONS, Application, HttpAnswer, HttpRequest
from tests.serve.transport.test_http_server import read_all

pytestmark = pytest.mark.fuzz
SERVICE = pb.DESCRIPTOR.services_by_name["RecommenderService"]
PATHS = [path_of(method.name) for method in SERVICE.methods]
FIELDS = sorted({field.name for message in pb.DESCRIPTOR.message_types_by_name.values() for field in message.fields})

# Any string of Python, lone surrogates too, escaped as JSON has it.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["user-1", "item-5"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=5),
    max_leaves=20,
)
some_ids = st.lists(st.sampled_from(["item-1", "x", ""]), max_size=4)
questions: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from(["user-1", "user-7", "nobody", ""]) | anything,
        "k": st.integers(-1, 2000) | anything,
        "offset": st.integers(0, 20_000) | anything,
        "history": st.fixed_dictionaries({"item_ids": st.lists(st.sampled_from(["item-1", "x"]), max_size=4)})
        | anything,
        "item_id": st.sampled_from(["item-1", "x"]),
        "allow_item_ids": some_ids | anything,
        "min_score": st.floats() | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
        "diversity": st.floats(),
        "popularity_discount": st.floats(),
        "exact": st.booleans() | anything,
        "model": st.fixed_dictionaries({}, optional={"name": st.text(), "label": st.text(), "version": anything}),
        "requests": st.lists(st.deferred(lambda: questions), max_size=3) | anything,
    },
)
bodies = st.one_of(
    st.binary(max_size=300),
    anything.map(lambda content: json.dumps(content).encode()),
    questions.map(lambda content: json.dumps(content).encode()),
    st.tuples(questions, st.integers(0, 60), st.binary(max_size=3)).map(
        lambda made: json.dumps(made[0]).encode()[: made[1]] + made[2] + json.dumps(made[0]).encode()[made[1] :]
    ),
)
queries = st.one_of(
    st.text(st.characters(codec="latin-1"), max_size=80),
    st.lists(st.tuples(st.sampled_from(FIELDS), st.text(max_size=8)), max_size=5).map(
        lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
    ),
)
targets = st.one_of(
    st.sampled_from([*PATHS, "/healthz", "/openapi.json"]),
    st.tuples(st.sampled_from(PATHS), queries).map("?".join),
    st.text(st.characters(codec="latin-1"), max_size=80),
)
verbs = st.sampled_from(["GET", "POST", "POST", "HEAD", "PUT", "OPTIONS"]) | st.text("ABZ", min_size=1, max_size=5)
headers = st.dictionaries(
    st.sampled_from(["authorization", "x-request-id", "traceparent", "tracestate", "content-type"]),
    st.text(st.characters(codec="latin-1"), max_size=60),
    max_size=3,
)
requests = st.builds(HttpRequest, verbs, targets, headers, bodies, st.builds(perf_counter_ns))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(
        ServerOptions(address="127.0.0.1:0", http_address="127.0.0.1:0", metrics_address="", drain_wait=0.0)
    )
    running.start()
    yield running
    running.stop()


def gateway_of(server: Server) -> Application:
    assert server._http is not None
    return server._http.application


def check(answer: HttpAnswer) -> Any:
    content = json.loads(answer.body)
    assert answer.status in REASONS
    for name, value in answer.headers:
        assert value.isprintable(), name
        value.encode("latin-1")
    if answer.status != 200:
        error = content["error"]
        assert error.keys() == {"code", "status", "message", "details"}
        assert error["code"] == answer.status
        assert error["message"]
        assert "Traceback" not in error["message"]
    return content


@given(request=requests)
def test_whatever_is_asked_is_answered_in_json_and_never_by_a_defect(server: Server, request: HttpRequest) -> None:
    begun = gateway_of(server).begin(request)
    answer = begun if isinstance(begun, HttpAnswer) else begun()
    assert server.admission.in_flight == 0
    assert answer.status not in {500, 501}, check(answer)
    check(answer)


@given(body=bodies)
def test_a_body_means_the_same_however_often_it_is_read(server: Server, body: bytes) -> None:
    answers = []
    for _ in range(2):
        begun = gateway_of(server).begin(HttpRequest("POST", "/v1/batchRecommend", {}, body, perf_counter_ns()))
        assert not isinstance(begun, HttpAnswer)
        answers.append(begun())
    assert answers[0].status == answers[1].status


LINES = (
    "GET /healthz HTTP/1.1|POST /v1/recommend HTTP/1.1|Host: x|Content-Length: 5|Content-Length: 9|Connection: close"
    "|Transfer-Encoding: chunked|Expect: 100-continue|5|0|||hello|{}"
)
lines = st.sampled_from(LINES.encode().split(b"|")) | st.binary(max_size=20)


@given(sent=st.lists(lines, max_size=12).map(b"\r\n".join) | st.binary(max_size=200))
def test_whatever_is_sent_is_answered_in_http_or_not_at_all(server: Server, sent: bytes) -> None:
    host, port = server.http_address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.sendall(sent)
        one.shutdown(socket.SHUT_WR)
        said = read_all(one)
    rest = said
    while rest:
        head, blank, rest = rest.partition(b"\r\n\r\n")
        assert blank
        first, *fields = head.split(b"\r\n")
        assert first.startswith(b"HTTP/1.1 ")
        status = int(first.split()[1])
        assert status == 100 or status in REASONS
        assert status != 500
        named = dict(field.lower().split(b": ", 1) for field in fields)
        size = int(named.get(b"content-length", b"0"))
        if size:
            json.loads(rest[:size])
        rest = rest[size:]
