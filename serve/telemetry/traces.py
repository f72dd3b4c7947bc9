"""Whether requests leave traces; nothing of OpenTelemetry is imported where they do not."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Protocol

from serve.answers.call import Call
from serve.answers.errors import ExtraMissing


class Tracing(Protocol):
    """Takes note of finished requests."""

    def of(self, method: str) -> Callable[[Call, str], None]:
        """What takes a call of a method, by its full name, and the code it ended with."""
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
        from serve.telemetry.otlp import OtlpTracing
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"--trace-endpoint: needs {error.name}: pip install 'lowpass[otel]'") from error
    return OtlpTracing(endpoint, share, metadata.version("lowpass"))
