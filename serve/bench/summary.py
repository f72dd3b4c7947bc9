"""Samples in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serve.bench.closed_loop import Samples
from serve.bench.errors import LoadTestError
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb

STAGES = ("queue", "encode", "search", "filter", "total")


@dataclass(frozen=True)
class LoadSummary:
    """One load test in numbers; milliseconds of the caller, microseconds of the server.

    Attributes:
        in_flight: Requests in flight at any time.
        answered: Requests answered; only these have latencies.
        errors: Failed requests by status code.
        throughput: Answers a second.
        p50_ms: Median latency seen by the caller.
        p95_ms: 95th percentile of it.
        p99_ms: 99th percentile of it.
        mean_ms: Mean of it.
        stages_p50_us: Median of each of the server's stages, by name.
        stages_mean_us: Mean of each.
        load_busy: Share of one core the generator used; near 1, the throughput is the generator's and not the server's.
        server_cpu_us: Processor time of the server an answer, all its threads; None where it was not measured.
    """

    in_flight: int
    answered: int
    errors: dict[str, int]
    throughput: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    stages_p50_us: dict[str, float]
    stages_mean_us: dict[str, float]
    load_busy: float
    server_cpu_us: float | None


def percentile(values: npt.NDArray[Any] | Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `share` % of the values do not exceed.

    It is always a value that was observed.

    Args:
        values: Shape (n,), n >= 1.
        share: From 0 to 100.
    """
    return float(np.percentile(np.asarray(values), share, method="inverted_cdf"))


def summarise(samples: Samples, in_flight: int) -> LoadSummary:
    """Turn samples into numbers.

    Args:
        samples: Observed.
        in_flight: As planned.

    Raises:
        LoadTestError: Not one request was answered.
    """
    answered = len(samples.latencies_ns)
    if answered == 0:
        failed = ", ".join(f"{count} × {code}" for code, count in sorted(samples.errors.items())) or "none was sent"
        raise LoadTestError(f"no request was answered ({failed}); see the server's log")
    latencies = np.asarray(samples.latencies_ns) / 1e6
    stages = read_stages(samples.answers)
    cpu = samples.server_cpu_seconds
    return LoadSummary(
        in_flight=in_flight,
        answered=answered,
        errors=dict(sorted(samples.errors.items())),
        throughput=answered / samples.seconds,
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        p99_ms=percentile(latencies, 99),
        mean_ms=float(latencies.mean()),
        stages_p50_us={name: percentile(stages[:, column], 50) for column, name in enumerate(STAGES)},
        stages_mean_us={name: float(stages[:, column].mean()) for column, name in enumerate(STAGES)},
        load_busy=samples.load_cpu_seconds / samples.seconds,
        server_cpu_us=None if cpu is None else cpu / answered * 1e6,
    )


def read_stages(answers: Sequence[bytes]) -> npt.NDArray[np.float64]:
    """Microseconds of each answer's stages, shape (n, 5), in the order of `STAGES`."""
    timings = (pb.RecommendResponse.FromString(answer).timings for answer in answers)
    return np.array([[getattr(timing, f"{stage}_us") for stage in STAGES] for timing in timings], dtype=np.float64)
