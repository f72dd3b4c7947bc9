"""What becomes known of requests, as one object that every transport is given: metrics, access log and traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serve.answers.call import Call
from serve.telemetry.logs import NO_LOG, AccessLog
from serve.telemetry.metrics import Metrics
from serve.telemetry.traces import Tracing


@dataclass(frozen=True)
class Telemetry:
    """Takes note of every finished request.

    Args:
        metrics: Count it, whatever its end.
        access_log: May leave a line.
        tracing: May leave a span; None for never.
    """

    metrics: Metrics
    access_log: AccessLog = NO_LOG
    tracing: Tracing | None = None

    def recorder(self, method: str, full_name: str) -> Callable[[Call, str], None]:
        """What takes a finished call of a method, and the gRPC status name it ended with.

        Args:
            method: Without the service, as metrics and the log name it.
            full_name: With the service, as traces do.
        """
        trace = self.tracing.of(full_name) if self.tracing is not None else None

        def record(call: Call, code: str) -> None:
            seconds = call.age_ns * 1e-9
            # Before the log and the histogram, which name the trace that begins here.
            trace_id = trace(call, code) if trace is not None else ""
            self.metrics.request(method, call.model, call.version, code, seconds, trace_id)
            self.access_log.note(method, call, code)

        return record

    def stop(self) -> None:
        """Send what is left of the traces, if that is quick."""
        if self.tracing is not None:
            self.tracing.stop()
