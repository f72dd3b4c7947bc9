"""The closed loop: N callers on one connection, each sends its next request when it has its answer.

Blocking calls from threads cost this process the least of grpcio's three ways (futures and asyncio were measured and
took more processor time a request). Messages pass as bytes; answers are parsed when the clock has stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import grpc

from serve.answers.limits import MAX_ANSWER_BYTES
from serve.bench.errors import LoadTestError

METHOD = "/lowpass.v1.RecommenderService/Recommend"


@dataclass(frozen=True)
class LoadPlan:
    """How hard to ask.

    Args:
        target: Address of the server, host:port.
        in_flight: Requests in flight at any time.
        requests: How many are measured.
        warm_up: How many are sent before, at the same rate, and not measured.
        timeout: Deadline of a request, in seconds.
        connect_timeout: How long to wait for the server, in seconds.
        server_pid: Process whose processor time is measured; None for nobody's.
    """

    target: str
    in_flight: int = 1
    requests: int = 1000
    warm_up: int = 100
    timeout: float = 10.0
    connect_timeout: float = 10.0
    server_pid: int | None = None


@dataclass
class Samples:
    """What was observed, in the order of completion.

    Attributes:
        latencies_ns: Of each answered request, sent to answered.
        answers: Their serialized `RecommendResponse`s.
        errors: Failed requests by status code.
        seconds: From the first request to the last answer.
        load_cpu_seconds: Processor time this process took meanwhile.
        server_cpu_seconds: And that of the server; None where it was not watched or cannot be.
    """

    latencies_ns: list[int] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    load_cpu_seconds: float = 0.0
    server_cpu_seconds: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def record(self, send: Callable[[bytes], bytes], payload: bytes, since_ns: int) -> bool:
        """Send one request and take note of its end; callers may do so side by side.

        Args:
            send: Sends it and waits.
            payload: The request.
            since_ns: What its latency counts from, by `perf_counter_ns`.

        Returns:
            Whether it was answered.
        """
        try:
            answer = send(payload)
        except grpc.RpcError as error:
            code = error.code().name
            with self._lock:
                self.errors[code] = self.errors.get(code, 0) + 1
            return False
        took = time.perf_counter_ns() - since_ns
        with self._lock:
            self.latencies_ns.append(took)
            self.answers.append(answer)
        return True


def run_closed_loop(plan: LoadPlan, payloads: Iterator[bytes]) -> Samples:
    """Warm up, then measure.

    Args:
        plan: How hard.
        payloads: Serialized requests; as many as are needed are taken before the clock starts.

    Raises:
        LoadTestError: The server cannot be reached.
    """
    warming, measured = list(islice(payloads, plan.warm_up)), list(islice(payloads, plan.requests))
    with connect(plan.target, plan.connect_timeout) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)

        def send(payload: bytes) -> bytes:
            return call(payload, timeout=plan.timeout)

        _drive(send, warming, plan.in_flight)
        server_before, load_before = _processor_seconds(plan.server_pid), time.process_time()
        samples = _drive(send, measured, plan.in_flight)
        samples.load_cpu_seconds = time.process_time() - load_before
        server_after = _processor_seconds(plan.server_pid)
    if server_before is not None and server_after is not None:
        samples.server_cpu_seconds = server_after - server_before
    return samples


def connect(target: str, timeout: float = 10.0) -> grpc.Channel:
    """A connection that is there; a context manager.

    Args:
        target: Address of the server, host:port.
        timeout: How long to wait for it, in seconds.

    Raises:
        LoadTestError: The server cannot be reached.
    """
    options = [
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    channel = grpc.insecure_channel(target, options=options)
    try:
        grpc.channel_ready_future(channel).result(timeout=timeout)
    except grpc.FutureTimeoutError as error:
        channel.close()
        raise LoadTestError(
            f"{target}: no server answered within {timeout:g} s; start one with 'lowpass serve'"
        ) from error
    return channel


def _drive(send: Callable[[bytes], bytes], payloads: list[bytes], in_flight: int) -> Samples:
    samples, waiting = Samples(), iter(payloads)

    def ask() -> None:
        for payload in waiting:
            samples.record(send, payload, time.perf_counter_ns())

    begun = time.perf_counter()
    run_side_by_side(ask, min(in_flight, len(payloads)))
    samples.seconds = time.perf_counter() - begun
    return samples


def run_side_by_side(work: Callable[[], None], count: int) -> None:
    """Run the same in so many threads, and wait for all."""
    # Daemons: an interrupt ends the process without waiting for calls that nobody will read.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _processor_seconds(pid: int | None) -> float | None:
    """User and system time of a process, from Linux's /proc; None elsewhere."""
    if pid is None:
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets, which may hold blanks; utime and stime are the 14th, 15th.
    utime, stime = stat.rpartition(")")[2].split()[11:13]
    return (int(utime) + int(stime)) / float(os.sysconf("SC_CLK_TCK"))
