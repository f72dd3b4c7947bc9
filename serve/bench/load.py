"""The load generator: processes that ask one server for top-k lists, at a rate or with so many requests in flight.

`Generator` is what the experiments drive. Each of its processes has a connection and users of its own, and threads that
make blocking calls: of grpcio's three ways these take the least processor time a request (futures and asyncio were
measured too). Messages travel as bytes, serialized before the clock starts; answers are parsed when it has stopped.

*Open loop*, at a rate: requests come when they come, whether or not earlier ones are answered. Arrivals are a Poisson
process. Latency counts from the moment a request was meant to be sent, so that a generator or a server that falls
behind cannot hide it ("coordinated omission": Gil Tene, "How NOT to Measure Latency", 2013).
*Closed loop*, with N in flight: each of N callers sends its next request when it has its answer.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import numpy as np

from export.bundle import BundleError, IdTable, open_bundle
from serve.answers.limits import MAX_ANSWER_BYTES
from serve.bench.errors import BenchError
from serve.bench.servers import pin
from serve.bench.windows import Window, read_stages, side_by_side
from serve.bench.workload import Workload

METHOD = "/lowpass.v1.RecommenderService/Recommend"
CONNECT_WITHIN = 10.0
DEADLINE = 10.0
"""Of a request, seconds, from when it is really sent."""
CALLERS = 128
"""Threads of an open loop: most requests that one process has in flight."""
PREPARED = 4096
"""Requests that a closed loop makes before its clock starts, and then asks in turn."""
BEGIN_AFTER = 0.05
"""Between the draw and the first arrival, in seconds, so that all callers stand ready."""


@dataclass(frozen=True)
class Asking:
    """How to ask for one window; exactly one of `rate` and `in_flight` is set.

    Attributes:
        seconds: Length of the window.
        rate: Requests a second, on average: an open loop.
        in_flight: Requests in flight: a closed loop.
        seed: Of an open loop's arrivals.
    """

    seconds: float
    rate: float | None = None
    in_flight: int | None = None
    seed: int = 0


class Generator:
    """Processes that ask one server, as one; a context manager.

    Args:
        target: Address of the server, host:port.
        bundle: Bundle whose users ask, or None where `users` do.
        workload: What is asked; each process draws users of its own.
        processes: Number of processes.
        users: Ids of users who ask, instead of the bundle's.
        core: Core to bind the processes to, or None.
        connect_within: How long to wait for the server, in seconds.
    """

    def __init__(
        self,
        target: str,
        bundle: Path | None,
        workload: Workload,
        processes: int = 1,
        users: Sequence[str] = (),
        core: int | None = None,
        connect_within: float = CONNECT_WITHIN,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.target = target
        self._ends: list[Connection] = []
        self._children = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, target, connect_within, bundle, workload, number, tuple(users))
            child = context.Process(target=_serve_windows, args=arguments, daemon=True)
            child.start()
            pin(child.pid, core)
            theirs.close()
            self._ends.append(ours)
            self._children.append(child)

    def __enter__(self) -> Self:
        try:
            for end in self._ends:
                _receive(end)
        except BenchError:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.join()

    def run(self, asking: Asking) -> Window:
        """Ask for one window.

        Raises:
            BenchError: A process died.
        """
        count = len(self._ends)
        for number, end in enumerate(self._ends):
            in_flight = None
            if asking.in_flight is not None:
                in_flight = asking.in_flight // count + (number < asking.in_flight % count)
            rate = None if asking.rate is None else asking.rate / count
            end.send(Asking(asking.seconds, rate, in_flight, asking.seed * count + number))
        return side_by_side([window for end in self._ends if (window := _receive(end)) is not None])


def _receive(end: Connection) -> Window | None:
    """What a process sends: a window, an error, or None for "ready" and "nothing to do"."""
    try:
        found = end.recv()
    except (EOFError, ConnectionError) as error:
        raise BenchError("a generating process died; see its message above") from error
    if isinstance(found, BenchError):
        raise found
    return found if isinstance(found, Window) else None


def _serve_windows(
    end: Connection,
    target: str,
    connect_within: float,
    bundle: Path | None,
    workload: Workload,
    number: int,
    users: Sequence[str],
) -> None:
    """What a generating process does: connect, then ask for window after window."""
    own = replace(workload, seed=workload.seed * 1000 + number)
    try:
        payloads = own.payloads(_user_ids(bundle, users))
        with connect(target, connect_within) as channel:
            end.send(None)
            while True:
                end.send(run_window(channel, payloads, end.recv()))
    except (BenchError, BundleError) as error:
        end.send(BenchError(str(error)))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


def _user_ids(bundle: Path | None, users: Sequence[str]) -> IdTable | Sequence[str]:
    return users if users or bundle is None else open_bundle(bundle, verify=False).user_ids


def connect(target: str, timeout: float = CONNECT_WITHIN) -> grpc.Channel:
    """Open a connection and wait until it is there; a context manager.

    Args:
        target: Address of the server, host:port.
        timeout: How long to wait for it, in seconds.

    Raises:
        BenchError: The server cannot be reached.
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
        raise BenchError(
            f"{target}: no server answered within {timeout:g} s; start one with 'lowpass serve'"
        ) from error
    return channel


def run_window(channel: grpc.Channel, payloads: Iterator[bytes], asking: Asking) -> Window | None:
    """Ask over one connection for one window; None where this process has nothing to ask.

    Args:
        channel: To the server.
        payloads: Serialized requests; as many as are needed are taken before the clock starts.
        asking: How.
    """
    if asking.rate is not None:
        return run_open_loop(channel, payloads, asking.rate, asking.seconds, asking.seed)
    return run_closed_loop(channel, payloads, asking.in_flight, asking.seconds) if asking.in_flight else None


def run_open_loop(
    channel: grpc.Channel, payloads: Iterator[bytes], rate: float, seconds: float, seed: int = 0
) -> Window:
    """Ask at a rate; see `run_window`."""
    moments = poisson_arrivals(rate, seconds, np.random.default_rng(seed))
    waiting = iter(list(zip(moments, islice(payloads, len(moments)), strict=True)))
    samples = Samples(channel)
    begin = time.perf_counter() + BEGIN_AFTER

    def ask() -> None:
        for moment, message in waiting:
            wait = begin + moment - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            samples.record(message, due_ns=int((begin + moment) * 1e9))

    samples.measure(ask, min(CALLERS, len(moments)))
    samples.seconds = max(seconds, time.perf_counter() - begin)
    return samples.window(rate)


def run_closed_loop(channel: grpc.Channel, payloads: Iterator[bytes], in_flight: int, seconds: float) -> Window:
    """Keep so many requests in flight for a while; see `run_window`."""
    # A cycle's step is atomic, so the callers need no lock for it.
    waiting = cycle(list(islice(payloads, PREPARED)))
    samples = Samples(channel)
    begin = time.perf_counter()

    def ask() -> None:
        while time.perf_counter() - begin < seconds:
            samples.record(next(waiting))

    samples.measure(ask, in_flight)
    return samples.window()


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


@dataclass
class Samples:
    """What one process observes, in the order of completion.

    Attributes:
        channel: To the server.
        latencies_ns: Of each answered request.
        late_ns: How long after its moment each answered request was sent.
        answers: Their serialized `RecommendResponse`s.
        errors: Failed requests by status code.
        seconds: From the first request to the last answer.
        load_cpu_seconds: Processor time that this process took meanwhile.
    """

    channel: grpc.Channel
    latencies_ns: list[int] = field(default_factory=list)
    late_ns: list[int] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    load_cpu_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(METHOD)
        self._lock = threading.Lock()

    def record(self, payload: bytes, due_ns: int | None = None) -> None:
        """Send one request, wait, and note how it ended; callers may do so side by side.

        Args:
            payload: The request.
            due_ns: When it was meant to be sent, by `perf_counter_ns`; None for now.
        """
        sent = time.perf_counter_ns()
        due = sent if due_ns is None else due_ns
        try:
            answer = self._call(payload, timeout=DEADLINE)
        except grpc.RpcError as error:
            code = error.code().name
            with self._lock:
                self.errors[code] = self.errors.get(code, 0) + 1
            return
        took = time.perf_counter_ns() - due
        with self._lock:
            self.latencies_ns.append(took)
            self.late_ns.append(max(0, sent - due))
            self.answers.append(answer)

    def measure(self, ask: Callable[[], None], callers: int) -> None:
        """Let so many callers ask side by side, wait for all, and note how long they and this process took."""
        # Daemons: an interrupt ends the process without waiting for calls that nobody will read.
        threads = [threading.Thread(target=ask, daemon=True) for _ in range(callers)]
        begin, on_processor = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds = time.perf_counter() - begin
        self.load_cpu_seconds = time.process_time() - on_processor

    def window(self, intended: float | None = None) -> Window:
        """The samples as arrays; `intended` is the rate of an open loop, requests a second."""
        return Window(
            np.asarray(self.latencies_ns, dtype=np.float64) / 1e6,
            np.asarray(self.late_ns, dtype=np.float64) / 1e6,
            read_stages(self.answers),
            self.seconds,
            dict(self.errors),
            self.load_cpu_seconds / self.seconds,
            intended,
        )
