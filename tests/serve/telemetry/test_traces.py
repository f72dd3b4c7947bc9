"""Traces of a real server, as a receiver of the standard's own protocol gets them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import lowpass
from serve.client.recommender import RecommenderClient
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from tests.kits.transport_bench import RECOMMEND, STREAM
from tests.serve.process.test_faults import TRANSPORTS
from tests.serve.processes import ServerProcess, serving

pytest.importorskip("opentelemetry.sdk", reason="the extra 'otel' is not installed")
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
NAME = RECOMMEND.lstrip("/")


class Receiver:
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    receiver.requests.append(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def spans(self) -> list[trace_pb2.Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, Any]:
        return attributes(self.requests[0].resource_spans[0].resource)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value for each in holder.attributes}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


@contextlib.contextmanager
def traced(folder: Path, endpoint: str, *options: str) -> Iterator[ServerProcess]:
    words = ["--fake", "--drain-wait", "0", "--access-log", "1", "--trace-endpoint", endpoint]
    with serving(folder, *words, *options) as server:
        yield server
        assert server.terminate() == 0


def ask(server: ServerProcess, user: str, traceparent: str = "") -> Any:
    metadata = (("traceparent", traceparent),) if traceparent else ()
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary(
            RECOMMEND, pb.RecommendRequest.SerializeToString, pb.RecommendResponse.FromString
        )
        try:
            return call(pb.RecommendRequest(user_id=user, k=3), timeout=10.0, metadata=metadata)
        except grpc.RpcError as error:
            return error


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_request_is_a_span_of_its_callers_trace(transport: str, tmp_path: Path, receiver: Receiver) -> None:
    before = time.time_ns()
    with traced(tmp_path, receiver.endpoint, "--transport", transport, "--trace-share", "0") as server:
        answer = ask(server, "user-1", SAMPLED)
        ask(server, "user-1", UNSAMPLED)
        ask(server, "user-1", "rubbish")
        ask(server, "nobody", SAMPLED)
        ask(server, "user-1")
    lines = [event for event in server.events() if event["event"] == "request"]
    found, refused = (span for span in receiver.spans if span.kind == trace_pb2.Span.SPAN_KIND_SERVER)
    assert (found.name, found.trace_id.hex(), found.parent_span_id.hex()) == (NAME, TRACE, PARENT)
    described = attributes(found)
    assert described.pop("lowpass.request_id") == lines[0]["request_id"]
    assert described == {
        "rpc.system.name": "grpc",
        "rpc.method": NAME,
        "rpc.response.status_code": "OK",
        "lowpass.model": "fake",
        "lowpass.version": "1",
    }
    assert (attributes(refused)["rpc.response.status_code"], refused.status.code) == ("NOT_FOUND", 0)
    assert [line.get("trace_id") for line in lines] == [TRACE, TRACE, None, TRACE, None]
    children = [span for span in receiver.spans if span.parent_span_id == found.span_id]
    assert [span.name for span in children] == ["queue", "encode", "search", "filter"][-len(children) :]
    assert {span.trace_id for span in children} == {found.trace_id}
    assert before < found.start_time_unix_nano < found.end_time_unix_nano < time.time_ns()
    assert found.start_time_unix_nano == children[0].start_time_unix_nano
    assert children[-1].end_time_unix_nano <= found.end_time_unix_nano
    searched = next(span for span in children if span.name == "search")
    assert (searched.end_time_unix_nano - searched.start_time_unix_nano) // 1000 == answer.timings.search_us
    assert receiver.resource()["service.name"] == "lowpass"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_share_of_the_others_begins_a_trace(transport: str, tmp_path: Path, receiver: Receiver) -> None:
    options = ["--transport", transport, "--trace-share", "1", "--http-address", "127.0.0.1:0"]
    with traced(tmp_path, receiver.endpoint + "/v1/traces", *options) as server:
        with RecommenderClient(server.address) as client:
            for _ in range(20):
                client.recommend("user-1")
            assert len(list(client.stream_recommend(["user-1"] * 200))) == 200
        request = urllib.request.Request(f"http://{server.http_address}/v1/recommend?user_id=user-1")
        request.add_header("traceparent", SAMPLED)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.loads(answer.read())["item_ids"]
    spans = [span for span in receiver.spans if span.kind == trace_pb2.Span.SPAN_KIND_SERVER]
    assert [span.name for span in spans] == [*[NAME] * 20, STREAM.lstrip("/"), NAME]
    assert len({span.trace_id for span in spans}) == 22
    assert [span.parent_span_id.hex() for span in spans] == [""] * 21 + [PARENT]
    assert attributes(spans[-1])["rpc.system.name"] == "http_json"
    logged = [event["trace_id"] for event in server.events() if event["event"] == "request"]
    assert logged == [span.trace_id.hex() for span in spans]


def test_a_sampled_trace_is_an_exemplar_of_its_latency_for_who_asks_for_openmetrics(
    tmp_path: Path, receiver: Receiver
) -> None:
    with traced(tmp_path, receiver.endpoint, "--trace-share", "0") as server:
        ask(server, "user-1")
        ask(server, "user-1", UNSAMPLED)
        assert exemplars(server) == []
        ask(server, "user-1", SAMPLED)
        give_up = time.monotonic() + 30  # a call counts after its answer is sent
        while not (found := exemplars(server)):
            assert time.monotonic() < give_up
        assert "trace_id" not in server.scrape()
    (bucket,) = found
    assert bucket.exemplar.labels == {"trace_id": TRACE}
    assert 0 < bucket.exemplar.value <= float(bucket.labels["le"])
    assert abs(float(bucket.exemplar.timestamp) - time.time()) < 300


def exemplars(server: ServerProcess) -> list[Any]:
    """The samples of the latency that have one, asked for as Prometheus does."""
    request = urllib.request.Request(f"http://{server.metrics_address}/metrics")
    request.add_header("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    with urllib.request.urlopen(request, timeout=10) as answer:
        read: Any = text_string_to_metric_families
        families = {each.name: each for each in read(answer.read().decode())}
    samples = families["lowpass_request_duration_seconds"].samples
    assert samples
    return [each for each in samples if each.exemplar]


def test_a_receiver_that_is_down_costs_callers_nothing(tmp_path: Path) -> None:
    """Tried: every request leaves a span and nobody takes them. Lost: the spans; no request, and no orderly stop."""
    with (
        traced(tmp_path, "http://127.0.0.1:9", "--trace-share", "1") as server,
        RecommenderClient(server.address) as client,
    ):
        assert [len(client.recommend("user-1", k=3)) for _ in range(1000)] == [3] * 1000


def test_without_the_packages_it_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    words = ["--fake", "--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    assert lowpass.main(["serve", *words, "--trace-endpoint", "http://127.0.0.1:9"]) == 2
    assert "pip install 'lowpass[otel]'" in capsys.readouterr().err


def test_nothing_of_it_is_imported_where_nobody_asks() -> None:
    code = "import sys, serve.process.server; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
