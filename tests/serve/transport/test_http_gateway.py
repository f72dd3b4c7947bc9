"""The gateway of a real server, asked over real HTTP by the standard library's client."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2

from export.bundle.repository import ModelRepository
from serve.answers.errors import UnusableCredentials
from serve.client.recommender import RecommenderClient
from serve.rpc import credentials
from serve.rpc.credentials import new_key
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.status import CODES
from serve.transport.http_connection import HttpBounds
from serve.transport.http_gateway import from_parameters, path_of
from serve.transport.http_messages import HTTP_STATUS, HttpAnswer, HttpRequest, Work, problem
from serve.transport.http_server import HttpServer
from tests.kits.authority import Authority
from tests.serve.processes import ServerProcess, serving

LOOK_AGAIN = 0.1


class Nothing:
    def begin(self, request: HttpRequest) -> HttpAnswer | Work:
        return problem(404, "nothing")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, repository: ModelRepository) -> Iterator[ServerProcess]:
    options = ["--repository", str(repository.root), "--drain-wait", "0", "--http-address", "127.0.0.1:0"]
    with serving(tmp_path_factory.mktemp("gateway"), *options) as running:
        yield running
        assert running.terminate() == 0


def ask(server: ServerProcess, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any], Any]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.http_address}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.loads(error.read())


def test_it_answers_what_grpc_answers(server: ServerProcess) -> None:
    with RecommenderClient(server.address) as client:
        expected = client.recommend("u3", k=7, exclude=["i1", "i2"], include_titles=True)
        folded = client.recommend(history=["i1", "i2"], k=3)
    posted = {"user_id": "u3", "k": 7, "exclude_item_ids": ["i1", "i2"], "include_titles": True}
    query = "user_id=u3&k=7&exclude_item_ids=i1&exclude_item_ids=i2&include_titles=true"
    for status, headers, found in (ask(server, "/v1/recommend", posted), ask(server, f"/v1/recommend?{query}")):
        assert status == 200
        assert headers["Content-Type"].startswith("application/json")
        assert tuple(found["item_ids"]) == expected.item_ids
        assert found["scores"] == pytest.approx(expected.scores)
        assert tuple(found["titles"]) == expected.titles
        assert (found["model"], found["source"], found["shortfall"]) == (
            "student",
            "SOURCE_PERSONAL",
            "SHORTFALL_UNSPECIFIED",
        )
    _, _, found = ask(server, "/v1/recommend?history.item_ids=i1&history.item_ids=i2&k=3&model.name=student")
    assert tuple(found["item_ids"]) == folded.item_ids


def test_every_method_is_there_and_described(server: ServerProcess) -> None:
    status, _, document = ask(server, "/openapi.json")
    assert status == 200
    service = pb.DESCRIPTOR.services_by_name["RecommenderService"]
    methods = [path_of(method.name) for method in service.methods if not method.server_streaming]
    assert list(document["paths"]) == methods
    assert ask(server, "/v1/streamRecommend", {})[0] == 404
    schema = document["components"]["schemas"]["RecommendRequest"]
    assert set(schema["properties"]) == {field.name for field in pb.RecommendRequest.DESCRIPTOR.fields}
    assert "At most Limits.max_k" in schema["properties"]["k"]["description"]
    assert document["components"]["schemas"]["Source"]["enum"] == list(pb.Source.keys())
    references = json.dumps(document).count("#/components/schemas/")
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert sum(json.dumps(document).count(f'"{name}"') for name in names) == references
    assert ask(server, "/v1/getInfo")[2]["models"][0]["name"] == "student"
    batch = {"requests": [{"user_id": "u1", "k": 2}, {"user_id": "nobody"}]}
    entries = ask(server, "/v1/batchRecommend", batch)[2]["entries"]
    assert len(entries[0]["response"]["item_ids"]) == 2
    assert entries[1]["status"]["code"] == code_pb2.NOT_FOUND
    assert len(ask(server, "/v1/similarItems?item_id=i5&k=4")[2]["item_ids"]) == 4


def test_failures_have_the_status_of_http_and_the_details_of_grpc(server: ServerProcess) -> None:
    status, _, found = ask(server, "/v1/recommend", {"user_id": "nobody"})
    assert (status, found["error"]["status"]) == (404, "NOT_FOUND")
    kinds = {detail["@type"].rpartition(".")[2]: detail for detail in found["error"]["details"]}
    assert kinds["ResourceInfo"]["resource_name"] == "nobody"
    assert kinds["ErrorInfo"]["reason"] == "UNKNOWN_USER"
    status, _, found = ask(server, "/v1/recommend", {"user_id": "u1", "k": 100_000})
    (detail,) = [each for each in found["error"]["details"] if "field_violations" in each]
    assert (status, detail["field_violations"][0]["field"]) == (400, "k")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/recommend", b"{", 400),
        ("/v1/recommend", b"[]", 400),
        ("/v1/recommend", b"null", 400),
        ("/v1/recommend", b"7", 400),
        ("/v1/recommend", b'""', 400),
        ("/v1/recommend", b'{"user_id": "\\ud800"}', 400),
        ("/v1/recommend", b'{"\\ud800": 1}', 400),
        ("/v1/recommend", b'{"user_id": "u1", "user_id": "u2"}', 400),
        ("/v1/recommend", b'{"history": []}', 400),
        ("/v1/recommend", b'{"user_id": "u1", "model": ""}', 400),
        ("/v1/batchRecommend", b'{"requests": [[]]}', 400),
        ("/v1/recommend", b'{"k": ' + b"9" * 5000 + b"}", 400),
        ("/v1/recommend", b'{"user_id": "u1", "min_score": 1e999}', 400),
        ("/v1/recommend?user_id=%ff", None, 400),
        ("/v1/recommend?user_id=u1&user_id=u2", None, 400),
        ("/v1/recommend?user_id=", None, 400),
        ("/%ff", None, 400),
        ("/healthz", {}, 405),
        ("/v1/recommend", {"user": "u1"}, 400),
        ("/v1/recommend", {"user_id": 7}, 400),
        ("/v1/recommend", b"[" * 100_000, 400),
        ("/v1/recommend", b"\xff\xfe", 400),
        ("/v1/recommend?nothing=1", None, 400),
        ("/v1/recommend?history=1", None, 400),
        ("/v1/recommend?user_id=u1&k=-1", None, 400),
        ("/v1/nothing", None, 404),
        ("/", None, 404),
        ("/v1/recommend", b"x" * (2 << 20), 413),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(server: ServerProcess, path: str, body: Any, status: int) -> None:
    found, _, content = ask(server, path, body)
    assert found == status == content["error"]["code"]
    assert set(content["error"]) == {"code", "status", "message", "details"}
    assert "\n" not in content["error"]["message"]
    assert "Traceback" not in json.dumps(content)


def test_calls_are_counted_with_those_of_grpc(server: ServerProcess) -> None:
    ask(server, "/v1/recommend?user_id=u1")
    line = 'lowpass_request_duration_seconds_count{code="OK",method="Recommend",model="student",version="2"}'
    assert line in server.scrape()


def test_a_method_that_is_not_offered_is_refused_with_those_that_are(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(server.http_address, timeout=10)
    connection.request("DELETE", "/v1/recommend")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert json.loads(answer.read())["error"]["status"] == "METHOD_NOT_ALLOWED"
    connection.close()


def test_a_packed_body_is_refused_and_what_cannot_be_read_is_placed(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(server.http_address, timeout=10)
    connection.request("POST", "/v1/recommend", b'{"user_id": "u1"}', {"Content-Encoding": "gzip"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Accept-Encoding"]) == (415, "identity")
    assert json.loads(answer.read())["error"]["status"] == "UNSUPPORTED_MEDIA_TYPE"
    for verb, path, body, place, said in (
        ("GET", "/v1/recommend?k=x", None, "query", "k"),
        ("POST", "/v1/recommend", b'{"\\ud800": 1}', "body", "surrogates not allowed"),
    ):
        connection.request(verb, path, body)
        message = json.loads(connection.getresponse().read())["error"]["message"]
        assert message.startswith(f"{place}: cannot be read (")
        assert said in message
    connection.close()


def test_slow_and_broken_callers_hold_nobody_by_http_or_grpc(server: ServerProcess) -> None:
    host, port = server.http_address.split(":")
    half = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    garbage = b"\x16\x03\x01\r\n\r\n"
    sockets = [socket.create_connection((host, int(port))) for _ in range(80)]
    for number, each in enumerate(sockets):
        each.sendall(half if number % 2 else garbage)
    with RecommenderClient(server.address, timeout=5.0) as client:
        for user in range(1, 5):
            for each in sockets[1::2]:
                each.sendall(b" ")
            assert len(client.recommend(f"u{user}", k=3)) == 3
    assert ask(server, "/v1/recommend?user_id=u1&k=3")[0] == 200
    assert 'lowpass_requests_rejected_total{reason="overloaded"}' not in server.scrape()
    for each in sockets:
        each.close()


def test_keys_and_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    key, line = new_key("reader")
    (tmp_path / "keys").write_text(line)
    options = ["--fake", "--drain-wait", "0", "--http-address", "127.0.0.1:0", "--api-keys", str(tmp_path / "keys")]
    options += ["--tls-cert", str(authority.server.certificate), "--tls-key", str(authority.server.key)]
    with serving(tmp_path, *options) as server:
        trust = ssl.create_default_context(cafile=str(tmp_path / "clients.pem"))
        url = f"https://{server.http_address}/v1/recommend?user_id=user-1&k=3"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, timeout=10, context=trust)
        with caught.value as refused:
            assert (refused.code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            assert len(json.loads(answer.read())["item_ids"]) == 3
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=10)
        assert server.terminate() == 0


def handshake(address: str, trust: ssl.SSLContext) -> bool:
    host, port = address.split(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            trust.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return False


def test_a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(credentials, "LOOK_AGAIN", LOOK_AGAIN)
    authority = Authority(tmp_path)
    server = HttpServer(Nothing(), HttpBounds(), tls=authority.server)
    address = server.bind("127.0.0.1:0")
    server.start()
    with caplog.at_level(logging.INFO, "lowpass.serve"):
        first = ssl.create_default_context(cafile=str(tmp_path / "clients.pem"))
        assert handshake(address, first)
        authority.server.certificate.write_text("no certificate")
        time.sleep(2 * LOOK_AGAIN)
        assert handshake(address, first), "the old one stays in force"
        authority.renew()
        time.sleep(2 * LOOK_AGAIN)
        assert not handshake(address, first)
        assert handshake(address, authority.trusting_context())
        server.stop(grace=1.0)
    events = [record.getMessage() for record in caplog.records]
    assert events.index("credentials left as they are") < events.index("credentials read again")


def test_certificates_that_cannot_be_read_are_named_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.server.key.write_text("no key")
    with pytest.raises(UnusableCredentials, match=r"server\.key"):
        HttpServer(Nothing(), HttpBounds(), tls=authority.server).bind("127.0.0.1:0")


def test_every_code_of_a_refusal_has_a_status() -> None:
    assert set(CODES.values()) | {code_pb2.INTERNAL} == set(HTTP_STATUS)


def test_parameters_become_the_fields_of_a_message() -> None:
    pairs = [("user_id", "a"), ("exact", ""), ("exclude_item_ids", "x"), ("model.label", "canary")]
    assert from_parameters(pairs, pb.RecommendRequest()) == {
        "user_id": "a",
        "exact": True,
        "exclude_item_ids": ["x"],
        "model": {"label": "canary"},
    }
    for wrong in ("model", "user_id.x", "nothing"):
        with pytest.raises(ValueError, match="no field"):
            from_parameters(
                [(wrong, "1")], pb.BatchRecommendRequest() if "requests" in wrong else pb.RecommendRequest()
            )
