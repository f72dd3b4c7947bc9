"""The endpoint of the series: what it answers, and whom it keeps waiting."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.answers.errors import AddressUnavailable
from serve.telemetry import endpoint as module
from serve.telemetry.endpoint import AT_ONCE, MetricsEndpoint


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("toys", "How many.", registry=made).set(3)
    return made


@pytest.fixture
def endpoint(registry: CollectorRegistry) -> Iterator[MetricsEndpoint]:
    made = MetricsEndpoint("127.0.0.1", 0, registry)
    yield made
    made.stop()


def connected(endpoint: MetricsEndpoint) -> socket.socket:
    host, _, port = endpoint.address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=10)


def scrape(endpoint: MetricsEndpoint) -> str:
    with urllib.request.urlopen(f"http://{endpoint.address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def threads_that_answer() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def is_over(connection: socket.socket) -> bool:
    """Whether the other side has closed it."""
    with suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


def test_serves_over_http_and_frees_its_port(registry: CollectorRegistry) -> None:
    endpoint = MetricsEndpoint("127.0.0.1", 0, registry)
    assert "toys 3.0" in scrape(endpoint)
    host, _, port = endpoint.address.rpartition(":")
    with pytest.raises(AddressUnavailable, match="--metrics-address"):
        MetricsEndpoint(host, int(port), registry)
    endpoint.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)
    with pytest.raises(AddressUnavailable, match=r"no\.such\.host"):
        MetricsEndpoint("no.such.host.invalid", 0, registry)


def test_serves_on_ipv6(registry: CollectorRegistry) -> None:
    try:
        endpoint = MetricsEndpoint("::1", 0, registry)
    except AddressUnavailable as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    assert endpoint.address.startswith("[::1]:")
    assert "toys 3.0" in scrape(endpoint)
    endpoint.stop()


def test_head_says_what_get_would_without_it(endpoint: MetricsEndpoint) -> None:
    said = []
    for method in ("GET", "HEAD"):
        with closing(http.client.HTTPConnection(endpoint.address, timeout=10)) as connection:
            connection.request(method, "/metrics")
            answer = connection.getresponse()
            said.append((answer.status, answer.headers["Content-Type"], answer.headers["Content-Length"]))
            body = answer.read()
            assert (b"toys 3.0" in body) == (method == "GET")
            assert answer.headers["Connection"] == "close"
            assert method == "GET" or body == b""
    assert said[0] == said[1]
    assert said[0][0] == 200
    assert int(said[0][2]) > 0


@pytest.mark.parametrize(("method", "status"), [("POST", 405), ("DELETE", 405), ("OPTIONS", 200), ("BREW", 501)])
def test_other_methods_are_told_so(endpoint: MetricsEndpoint, method: str, status: int) -> None:
    with closing(http.client.HTTPConnection(endpoint.address, timeout=10)) as connection:
        connection.request(method, "/metrics")
        assert connection.getresponse().status == status


def test_the_question_chooses_format_and_names(endpoint: MetricsEndpoint) -> None:
    with closing(http.client.HTTPConnection(endpoint.address, timeout=10)) as connection:
        connection.request("GET", "/metrics?name[]=nothing", headers={"Accept": "application/openmetrics-text"})
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.read() == b"# EOF\n"


def test_a_hundred_idle_connections_hold_few_threads_and_no_scraper(endpoint: MetricsEndpoint) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    idle = [connected(endpoint) for _ in range(100)]
    for _ in range(3):
        assert "toys 3.0" in scrape(endpoint)
    assert threads_that_answer() <= AT_ONCE
    ours = len(idle)
    assert len(list(Path("/proc/self/fd").iterdir())) - before - ours <= AT_ONCE + 1
    assert all(is_over(each) for each in idle[: -2 * AT_ONCE]), "the oldest made way"
    for each in idle:
        each.close()


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\n"])
def test_who_does_not_ask_in_time_is_dropped_however_slowly_it_goes_on(
    endpoint: MetricsEndpoint, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(module, "ASK_WITHIN", 0.3)
    with connected(endpoint) as slow:
        slow.sendall(sent)
        slow.settimeout(0.05)
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 20:
                slow.sendall(b"a" if sent else b"")
                with suppress(TimeoutError):
                    if slow.recv(1) == b"":
                        break
        assert time.monotonic() - began < 10
    assert "toys 3.0" in scrape(endpoint)


class Slow(Collector):
    """A series that takes its time, and much room."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        self.asked.set()
        assert self.go_on.wait(10)
        family = GaugeMetricFamily("wide", "Much.", labels=["place"])
        for place in range(80_000):
            family.add_metric([f"{place:050d}"], 1.0)
        return [family]


def test_who_has_asked_keeps_its_place_and_who_reads_nothing_loses_it(
    endpoint: MetricsEndpoint, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_WITHIN", 0.5)
    slow = Slow()
    registry.register(slow)
    with connected(endpoint) as asking:
        asking.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert slow.asked.wait(10)
        idle = [connected(endpoint) for _ in range(3 * AT_ONCE)]
        slow.go_on.set()
        assert asking.recv(15).startswith(b"HTTP/1.0 200"), "idle ones made way, not the one that had asked"
        for each in idle:
            each.close()
        give_up = time.monotonic() + 20
        while threads_that_answer() and time.monotonic() < give_up:
            time.sleep(0.02)
        assert threads_that_answer() == 0, "nobody waits for it to read the rest"
    registry.unregister(slow)
    assert "toys 3.0" in scrape(endpoint)


class Broken(Collector):
    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        raise ValueError("on purpose")


def test_a_defect_in_a_series_is_told_and_logged(
    endpoint: MetricsEndpoint, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register(Broken())
    with closing(http.client.HTTPConnection(endpoint.address, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 500
        assert b"on purpose" not in answer.read()
    assert "on purpose" in caplog.text


def test_stopping_waits_for_nobody(registry: CollectorRegistry) -> None:
    endpoint = MetricsEndpoint("127.0.0.1", 0, registry)
    idle = [connected(endpoint) for _ in range(AT_ONCE)]
    scrape(endpoint)
    began = time.monotonic()
    endpoint.stop()
    assert time.monotonic() - began < 3
    assert all(is_over(each) for each in idle)
    for each in idle:
        each.close()
