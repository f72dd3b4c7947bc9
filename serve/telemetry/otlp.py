"""OpenTelemetry traces of requests: a span each, children by stage, sent by OTLP over HTTP off the query path.

A request ends before its span is made, from the timings that it has anyway: nothing is measured twice, and a request
that is not sampled costs one look at its metadata. Attributes follow the semantic conventions for RPC. The SDK reads
OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_HEADERS itself.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from time import time_ns
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve.answers.call import Call

PATH = "/v1/traces"
EXPORT_WITHIN = 2.0
"""Longest time of one export, in seconds; what cannot be sent then is dropped."""
STOP_WITHIN = 2.0
"""Longest time for what is left when stopping, in seconds."""
SERVERS_FAULT = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that make a server's span an error, by the semantic conventions for gRPC."""
_PROPAGATOR = TraceContextTextMapPropagator()
_HEADERS = frozenset({"traceparent", "tracestate"})


class OtlpTracing:
    """Sends a share of the requests, and every one whose caller's trace is sampled.

    Args:
        endpoint: `http://HOST:PORT` of an OTLP receiver, or with a path.
        share: Of the requests that come without a trace, from 0 to 1.
        version: Of the software.
    """

    def __init__(self, endpoint: str, share: float, version: str) -> None:
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

    def of(self, method: str) -> Callable[[Call, str], None]:
        """What takes note of finished requests of a method.

        Args:
            method: Its full name, e.g. "lowpass.v1.RecommenderService/Recommend".
        """

        def note(call: Call, code: str) -> None:
            carrier = {name: str(value) for name, value in call.metadata if name in _HEADERS}
            parent = _PROPAGATOR.extract(carrier) if carrier else Context()
            has_parent = bool(carrier) and get_current_span(parent).get_span_context().is_valid
            if has_parent or random.random() < self._share:  # noqa: S311 - draws a sample, keeps no secret
                self._send(method, call, code, parent)

        return note

    def stop(self) -> None:
        """Send what is left, if that is quick, and nothing more."""
        give_up = threading.Timer(STOP_WITHIN, self._exporter.shutdown)
        give_up.start()
        self._provider.shutdown()
        give_up.cancel()

    def _send(self, method: str, call: Call, code: str, parent: Context) -> None:
        ended = time_ns()
        began = ended - call.age_ns
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, start_time=began)
        call.trace_id = format_trace_id(span.get_span_context().trace_id)
        if not span.is_recording():
            return
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

    def _send_stages(self, span: Span, call: Call, began: int) -> None:
        """One after the other, as they ran; what a batch did for several requests together counts for each."""
        context = set_span_in_context(span)
        stages = {"queue": call.queue_ns, "encode": call.encode_ns, "search": call.search_ns, "filter": call.filter_ns}
        for name, duration in stages.items():
            if duration:
                self._tracer.start_span(name, context, start_time=began).end(began + duration)
                began += duration
