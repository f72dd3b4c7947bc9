"""Every Prometheus series of the server, in one place; the registry comes from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from serve.answers.errors import AddressUnavailable
from serve.answers.types import ModelSummary, Source
from serve.telemetry.latency_histogram import LatencyHistogram
from serve.telemetry.model_series import ModelSeries, ShadowSeries

BUCKETS = tuple(float(f"{1e-5 * 1.5**power:.3g}") for power in range(35))
"""Seconds, geometric from 10 µs to 9.7 s: a quantile read from them is off by at most a factor of 1.5."""

STAGES = ("queue", "encode", "search", "filter", "total")


class Metrics:
    """The series.

    Args:
        registry: Where they are registered; one per server.

    Attributes:
        shadow: How live and shadow models agree.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._request_duration = LatencyHistogram(
            "lowpass_request_duration_seconds",
            "From arrival until the answer or the error was ready to be sent.",
            ["method", "model", "version", "code"],
            BUCKETS,
            registry,
        )
        self._stage_duration = LatencyHistogram(
            "lowpass_stage_duration_seconds",
            "Where the time of answered requests went.",
            ["stage", "model"],
            BUCKETS,
            registry,
        )
        self._in_flight = Gauge(
            "lowpass_requests_in_flight", "Requests in work or waiting for a worker.", registry=registry
        )
        self._rejected = Counter(
            "lowpass_requests_rejected_total",
            "Requests refused or given up before they were worked on.",
            ["reason"],
            registry=registry,
        )
        self._answers = Counter(
            "lowpass_answers_total",
            "Lists sent, by how they came about.",
            ["model", "source"],
            registry=registry,
        )
        self._models = ModelSeries(registry)
        self.shadow = ShadowSeries(registry, BUCKETS)
        self._children: dict[tuple[Counter, tuple[str, ...]], Counter] = {}

    def watch_in_flight(self, read: Callable[[], float]) -> None:
        """Read the gauge of requests in flight from `read` when scraped."""
        self._in_flight.set_function(read)

    def request(self, method: str, model: str, version: str, code: str, seconds: float) -> None:
        """Count one finished request; an empty model is one that was not found or not reached."""
        self._request_duration.observe(((method, model, version, code), seconds))

    def stages(self, model: str, nanoseconds: tuple[int, ...]) -> None:
        """Count the stages of one answered request, in the order of `STAGES`."""
        self._stage_duration.observe(
            *[((stage, model), duration * 1e-9) for stage, duration in zip(STAGES, nanoseconds, strict=True)]
        )

    def rejected(self, reason: str) -> None:
        """Count one request that was not worked on."""
        self._count(self._rejected, reason)

    def answer(self, model: str, source: Source) -> None:
        """Count one list."""
        self._count(self._answers, model, source.value)

    def _count(self, counter: Counter, *labels: str) -> None:
        # Kept, because labels() alone costs as much as counting.
        child = self._children.get((counter, labels))
        if child is None:
            child = self._children.setdefault((counter, labels), counter.labels(*labels))
        child.inc()

    def model_loaded(self, summary: ModelSummary, load_seconds: float) -> None:
        """Publish what is known about a loaded model."""
        self._models.publish(summary, load_seconds)

    def model_unloaded(self, summary: ModelSummary) -> None:
        """Publish it no longer."""
        self._models.withdraw(summary)

    def load_failed(self, model: str) -> None:
        """Count one load that failed."""
        self._models.count_failure(model)

    def handled(self) -> dict[str, int]:
        """Finished requests by code, over all methods and models."""
        counts: dict[str, int] = {}
        for (_, _, _, code), count in self._request_duration.totals():
            counts[code] = counts.get(code, 0) + count
        return counts


@dataclass(frozen=True)
class MetricsEndpoint:
    """The registry over HTTP.

    Args:
        server: Serving in its own thread.
        thread: That thread.
    """

    server: WSGIServer
    thread: Thread

    @classmethod
    def start(cls, host: str, port: int, registry: CollectorRegistry) -> MetricsEndpoint:
        """Serve `/metrics`.

        Args:
            host: Address to bind.
            port: Port to bind; 0 for any free one.
            registry: What to serve.

        Raises:
            AddressUnavailable: The address cannot be bound.
        """
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise AddressUnavailable(
                f"--metrics-address {host}:{port}: cannot be bound ({error.strerror}): choose another one"
            ) from error
        return cls(server, thread)

    @property
    def address(self) -> str:
        """Host and port really bound."""
        host, port = self.server.server_address[:2]
        return f"{host!s}:{port}"

    def stop(self) -> None:
        """Stop serving and free the port."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
