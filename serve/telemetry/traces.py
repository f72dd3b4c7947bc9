"""OpenTelemetry traces of requests: a span each, children by stage, sent by OTLP over HTTP off the query path.

A request ends before its span is made, from the timings that it has anyway: nothing is measured twice, and a request
that is not sampled costs one look at its metadata. Attributes follow the semantic conventions for RPC
(https://opentelemetry.io/docs/specs/semconv/rpc/). The SDK reads OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and
OTEL_EXPORTER_OTLP_HEADERS itself.

OpenTelemetry is an extra, and large: it is imported where a receiver is given, and not before.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from importlib import metadata
from time import time_ns
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from serve.answers.call import Call
from serve.answers.errors import ExtraMissing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

PATH = "/v1/traces"
EXPORT_WITHIN = 2.0
"""Longest time of one export, in seconds; what cannot be sent then is dropped."""
STOP_WITHIN = 2.0
"""Longest time for what is left when stopping, in seconds."""
SERVERS_FAULT = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that make a server's span an error, by the semantic conventions for gRPC."""
_HEADERS = frozenset({"traceparent", "tracestate"})


class Tracing(Protocol):
    """Takes note of finished requests."""

    def of(self, method: str) -> Callable[[Call, str], str]:
        """What takes a call of a method, by its full name, and its code; it returns the id of a sent trace."""
        ...

    def stop(self) -> None:
        """Send what is left, if that is quick, and nothing more."""
        ...


def open_tracing(endpoint: str, share: float) -> Tracing | None:
    """Send traces to an OTLP receiver; None where there is none.

    Args:
        endpoint: `http://HOST:PORT`, or with a path; empty for none.
        share: Of the requests that come without a trace, from 0 to 1.

    Raises:
        ExtraMissing: The packages are not installed.
    """
    if not endpoint:
        return None
    try:
        return OtlpTracing(endpoint, share, metadata.version("lowpass"))
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"--trace-endpoint: needs {error.name}: pip install 'lowpass[otel]'") from error


class OtlpTracing:
    """Sends a share of the requests, and every one whose caller's trace is sampled.

    Args:
        endpoint: `http://HOST:PORT` of an OTLP receiver, or with a path.
        share: Of the requests that come without a trace, from 0 to 1.
    """

    def __init__(self, endpoint: str, share: float, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

        address = urlsplit(endpoint)
        url = endpoint.rstrip("/") + PATH if address.path in {"", "/"} else endpoint
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "lowpass"}))
        self._share = share
        # A request without a parent comes here only when it is to be sent.
        self._provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_WITHIN)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        # A receiver that is down is an error line for each failed export; its retries need none.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        self._tracer = self._provider.get_tracer("lowpass.serve", version)

    def of(self, method: str) -> Callable[[Call, str], str]:
        """What takes note of finished requests of a method, and returns the id of the trace that is sent, if any.

        Args:
            method: Its full name, e.g. "lowpass.v1.RecommenderService/Recommend".
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()

        def note(call: Call, code: str) -> str:
            carrier = {name: str(value) for name, value in call.metadata if name in _HEADERS}
            parent = propagator.extract(carrier) if carrier else Context()
            has_parent = bool(carrier) and get_current_span(parent).get_span_context().is_valid
            if has_parent or random.random() < self._share:  # noqa: S311 - draws a sample, keeps no secret
                return self._send(method, call, code, parent)
            return ""

        return note

    def stop(self) -> None:
        """Send what is left, if that is quick, and nothing more."""
        give_up = threading.Timer(STOP_WITHIN, self._exporter.shutdown)
        give_up.start()
        self._provider.shutdown()
        give_up.cancel()

    def _send(self, method: str, call: Call, code: str, parent: Context) -> str:
        from opentelemetry.trace import SpanKind, StatusCode, format_trace_id

        ended = time_ns()
        began = ended - call.age_ns
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, start_time=began)
        call.trace_id = format_trace_id(span.get_span_context().trace_id)
        if not span.is_recording():
            return ""
        span.set_attributes(
            {
                "rpc.system.name": call.protocol,
                "rpc.method": method,
                "rpc.response.status_code": code,
                "lowpass.model": call.model,
                "lowpass.version": call.version,
                "lowpass.request_id": call.request_id,
            }
        )
        if code in SERVERS_FAULT:
            span.set_attribute("error.type", code)
            span.set_status(StatusCode.ERROR)
        self._send_stages(span, call, began)
        span.end(ended)
        return call.trace_id

    def _send_stages(self, span: Span, call: Call, began: int) -> None:
        """One after the other, as they ran; what a batch did for several requests together counts for each."""
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(span)
        stages = {"queue": call.queue_ns, "encode": call.encode_ns, "search": call.search_ns, "filter": call.filter_ns}
        for name, duration in stages.items():
            if duration:
                self._tracer.start_span(name, context, start_time=began).end(began + duration)
                began += duration
