"""Windows of load over one connection: at a rate (open loop), or with so many in flight (closed loop).

In the open loop requests come when they come, whether or not earlier ones have been answered.

Arrivals are a Poisson process, drawn before the clock starts. Latency counts from the moment a request was meant to be
sent, so that a generator or a server that falls behind cannot hide it ("coordinated omission", Tene).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import grpc
import numpy as np

from serve.bench.closed_loop import METHOD, Samples, run_side_by_side
from serve.bench.window import Window, window_of

CALLERS = 128
"""Threads: most requests that one process has in flight."""
PREPARED = 4096
BEGIN_AFTER = 0.05
"""Between the draw and the first arrival, in seconds, so that all callers stand ready."""


@dataclass(frozen=True)
class OpenPlan:
    """How often to ask.

    Args:
        rate: Requests a second, on average.
        seconds: How long requests arrive.
        timeout: Deadline of a request, in seconds, from when it is really sent.
        seed: Of the arrivals.
    """

    rate: float
    seconds: float
    timeout: float = 10.0
    seed: int = 0


def poisson_arrivals(rate: float, seconds: float, rng: np.random.Generator) -> list[float]:
    """Moments of a Poisson process, rising, in seconds from its beginning.

    Args:
        rate: Arrivals a second, on average.
        seconds: Length of the process.
        rng: Draws the gaps.
    """
    expected = rate * seconds
    drawn = int(expected + 6 * np.sqrt(expected) + 10)
    moments = np.cumsum(rng.exponential(1 / rate, size=drawn))
    within: list[float] = moments[moments < seconds].tolist()
    return within


def run_open_loop(plan: OpenPlan, payloads: Iterator[bytes], channel: grpc.Channel) -> Window:
    """Ask at a rate.

    Args:
        plan: How often.
        payloads: Serialized requests; as many as arrive are taken before the clock starts.
        channel: To the server.
    """
    moments = poisson_arrivals(plan.rate, plan.seconds, np.random.default_rng(plan.seed))
    messages = list(islice(payloads, len(moments)))
    send = _sender(channel, plan.timeout)
    samples, late_ns = Samples(), []
    waiting = iter(list(zip(moments, messages, strict=True)))
    begin = time.perf_counter() + BEGIN_AFTER

    def ask() -> None:
        for moment, message in waiting:
            wait = begin + moment - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            due, sent = int((begin + moment) * 1e9), time.perf_counter_ns()
            if samples.record(send, message, due):
                late_ns.append(max(0, sent - due))

    on_processor = time.process_time()
    run_side_by_side(ask, min(CALLERS, len(messages)))
    samples.seconds = max(plan.seconds, time.perf_counter() - begin)
    samples.load_cpu_seconds = time.process_time() - on_processor
    return window_of(samples, late_ns, plan.rate)


def run_closed_window(
    channel: grpc.Channel, payloads: Iterator[bytes], *, in_flight: int, seconds: float, timeout: float = 10.0
) -> Window:
    """Keep so many requests in flight for a while; see `closed_loop`.

    Args:
        channel: To the server.
        payloads: Serialized requests; `PREPARED` are taken before the clock starts, and asked in turn.
        in_flight: How many.
        seconds: How long.
        timeout: Deadline of a request, in seconds.
    """
    send = _sender(channel, timeout)
    # A cycle's step is atomic, so the callers need no lock for it.
    waiting = cycle(list(islice(payloads, PREPARED)))
    samples = Samples()
    begin = time.perf_counter()

    def ask() -> None:
        while time.perf_counter() - begin < seconds:
            samples.record(send, next(waiting), time.perf_counter_ns())

    on_processor = time.process_time()
    run_side_by_side(ask, in_flight)
    samples.seconds = time.perf_counter() - begin
    samples.load_cpu_seconds = time.process_time() - on_processor
    return window_of(samples)


def _sender(channel: grpc.Channel, timeout: float) -> Callable[[bytes], bytes]:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)

    def send(payload: bytes) -> bytes:
        return call(payload, timeout=timeout)

    return send
