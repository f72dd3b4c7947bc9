"""`lowpass serve --workers N`: the process that starts workers, keeps them up, merges their series and stops them.

Start: hold the addresses → the endpoint of all series → one worker → the others → all ready → announce.
What is wrong with a bundle, the first worker says once, and ends the whole as it would end a single server. From then
on a worker that ends is started again, after a wait that grows with each end in a row (`Backoff`). It is restarted when
it ends, not when it is slow: `lowpass_worker_up` tells of one that hangs.
Stop: SIGTERM to every worker → each drains → the endpoint last.

The series of all workers are on one endpoint (`MergedSeries`), each with a label `worker`. A label, not a sum: the
counters of a restarted worker begin anew at 0, and Prometheus's `rate` understands that of each series by itself, while
a sum that falls by one worker's share would look like a reset of all. A worker that has died is asked no more and so
counts no more; nothing is kept on disk. Over all workers it is `sum without (worker) (…)`, and for quantiles
`histogram_quantile(0.99, sum by (le) (rate(…_bucket[5m])))`, which holds for a single process as well.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Lock
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serve.process.lifecycle import ADDRESSES, announce, stop_signals
from serve.process.options import ServerOptions
from serve.process.shared_port import SharedPort
from serve.process.worker import Ended, Failed, Ready, Report, Worker, WorkerProcess
from serve.telemetry.endpoint import MetricsEndpoint
from serve.telemetry.logs import LogWriter, log_to_stderr
from serve.telemetry.metrics import DroppedLines
from serve.transport.address import split_address

LOG = logging.getLogger("lowpass.serve")
SHARED = {"address": "--address", "health_address": "--health-address", "http_address": "--http-address"}
SLACK = 10.0
"""Beyond its drain wait and grace, a worker may take so long to end, in seconds; then it is killed."""
FIRST, FACTOR, LONGEST, HEALTHY = 0.1, 2.0, 30.0, 60.0
ANSWER_WITHIN = 3.0
"""Longest wait for the series of a worker, in seconds; Prometheus gives up after 10 unless told otherwise."""
LABEL = "worker"


@dataclass
class Backoff:
    """Doubles with each end in a row, and begins anew after a while of health.

    Args:
        first: Wait after the first end, in seconds.
        factor: Between one wait and the next.
        longest: Wait that is never exceeded, in seconds.
        healthy: Time of serving that makes the ends before it forgotten, in seconds.
    """

    first: float = FIRST
    factor: float = FACTOR
    longest: float = LONGEST
    healthy: float = HEALTHY
    _next: float = field(default=0.0, init=False)

    def after(self, served: float) -> float:
        """The wait in seconds after one more end.

        Args:
            served: How long the worker had served, in seconds; 0 where it never did.
        """
        wait = self.first if served >= self.healthy or not self._next else self._next
        self._next = min(self.longest, wait * self.factor)
        return wait


@dataclass(frozen=True)
class WorkerState:
    """What is known of the worker in one place.

    Args:
        worker: Serving; None where none does at the moment.
        restarts: How often one was started again here.
    """

    worker: Worker | None
    restarts: int


class MergedSeries(Collector):
    """Asks the workers when it is asked itself; one that does not answer in time is left out and counts as not up.

    Args:
        states: The workers now, in the order of their numbers.
        answer_within: Longest wait for all of them, in seconds.
    """

    def __init__(self, states: Callable[[], Sequence[WorkerState]], answer_within: float = ANSWER_WITHIN) -> None:
        self._states = states
        self._answer_within = answer_within
        self._lock = Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: what there is, the workers say."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Every family of every worker, and which workers are up."""
        with self._lock:
            states = list(self._states())
            give_up = monotonic() + self._answer_within
            for state in states:
                if state.worker is not None:
                    state.worker.ask_series()
            texts = [state.worker.series(give_up) if state.worker is not None else None for state in states]
        up = GaugeMetricFamily("lowpass_worker_up", "1 for each worker that serves and answered.", labels=[LABEL])
        restarts = CounterMetricFamily(
            "lowpass_worker_restarts", "How often a worker was started again after it had ended.", labels=[LABEL]
        )
        for number, (state, text) in enumerate(zip(states, texts, strict=True)):
            up.add_metric([str(number)], float(text is not None))
            restarts.add_metric([str(number)], state.restarts)
        return [up, restarts, *merge(texts)]


def merge(texts: Sequence[str | None]) -> list[Metric]:
    """One family of each name, whose samples say in the label `worker` whose they are.

    Args:
        texts: Of each worker, in Prometheus's text format; None for one that said nothing.
    """
    families: dict[str, Metric] = {}
    for number, text in enumerate(texts):
        for family in text_string_to_metric_families(text or ""):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.add_sample(sample.name, {LABEL: str(number), **sample.labels}, sample.value)
    return list(families.values())


class WorkerFailed(Exception):
    """A worker cannot start.

    Args:
        message: Why.
        exit_code: Whose fault that is: 2 the user's, 1 ours.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class _Place:
    """Where one worker after another serves.

    Attributes:
        worker: Started; None while none is.
        ready_since: When it became ready, on the supervisor's clock; None before.
        due: When to start one; None while there is one.
        backoff: How long to wait when it ends.
        restarts: How often one was started again.
    """

    worker: Worker | None = None
    ready_since: float | None = None
    due: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    restarts: int = 0


class Supervisor:
    """Keeps workers up.

    Args:
        start: Starts the worker of a number, which reports what becomes of it.
        clock: In seconds, rising.

    Attributes:
        ready: What the first worker said when it was ready.
    """

    def __init__(
        self, count: int, start: Callable[[int, Report], Worker], clock: Callable[[], float] = monotonic
    ) -> None:
        self._start = start
        self._clock = clock
        self._places = [_Place() for _ in range(count)]
        self._events: SimpleQueue[Ready | Failed | Ended | str] = SimpleQueue()
        self.ready: dict[str, Any] = {}

    def tell(self, signal_name: str) -> None:
        """Let it stop; may be called from a signal handler."""
        self._events.put(signal_name)

    def states(self) -> list[WorkerState]:
        """The workers that serve, by number."""
        return [
            WorkerState(place.worker if place.ready_since is not None else None, place.restarts)
            for place in self._places
        ]

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [place.worker.pid for place in self._places if place.worker is not None]

    def bring_up(self) -> str:
        """Start one worker, then the others; returns when all are ready, or with the name of a signal that came before.

        Raises:
            WorkerFailed: One cannot start.
        """
        numbers = range(len(self._places))
        return self._start_together(numbers[:1]) or self._start_together(numbers[1:])

    def keep_up(self) -> str:
        """Start anew whichever worker ends; returns the name of the signal that says stop."""
        while not isinstance(event := self._next(), str):
            self.handle(event)
        return event

    def start_due(self) -> float | None:
        """Start what is due; returns the seconds until something else is, None for never."""
        for number, place in enumerate(self._places):
            if place.due is not None and place.due <= self._clock():
                place.restarts += 1
                try:
                    self._launch(number)
                except OSError as error:
                    wait = place.backoff.after(0.0)
                    place.due = self._clock() + wait
                    fields = {"worker": number, "error": str(error), "restart_in": wait}
                    LOG.error("worker cannot start", extra={"fields": fields})
        return min((place.due - self._clock() for place in self._places if place.due is not None), default=None)

    def handle(self, event: Ready | Failed | Ended) -> None:
        """Take note of what became of a worker."""
        place = self._places[event.number]
        if place.worker is None:
            raise RuntimeError(f"worker {event.number} spoke after its end")
        which: dict[str, Any] = {"worker": event.number, "pid": place.worker.pid}
        if isinstance(event, Ready):
            place.ready_since = self._clock()
            self.ready = self.ready or event.content
            LOG.info("worker ready", extra={"fields": {**which, **event.content}})
        elif isinstance(event, Failed):
            LOG.error("worker cannot start", extra={"fields": {**which, "error": event.error}})
        else:
            which |= _how_ended(place.worker.reap())
            served = 0.0 if place.ready_since is None else self._clock() - place.ready_since
            wait = place.backoff.after(served)
            place.worker, place.ready_since, place.due = None, None, self._clock() + wait
            LOG.error("worker ended", extra={"fields": {**which, "served": round(served, 3), "restart_in": wait}})

    def end(self, within: float) -> bool:
        """Let every worker stop in order.

        Args:
            within: Whoever is not done after so long is killed, in seconds.

        Returns:
            Whether all were done in time, with nothing cut off; one that was not ready yet had nothing to do.
        """
        left = {number: place.worker for number, place in enumerate(self._places) if place.worker is not None}
        for worker in left.values():
            worker.terminate()
        give_up, in_order = monotonic() + within, True
        while left:
            try:
                event = self._events.get(timeout=max(0.0, give_up - monotonic()))
            except Empty:
                in_order, give_up = False, monotonic() + SLACK
                for worker in left.values():
                    worker.kill()
                continue
            if isinstance(event, Ended):
                worker = left.pop(event.number)
                ended = _how_ended(worker.reap())
                was_ready = self._places[event.number].ready_since is not None
                in_order = in_order and (ended == {"exit_code": 0} or not was_ready)
                LOG.info("worker ended", extra={"fields": {"worker": event.number, "pid": worker.pid, **ended}})
        return in_order

    def _start_together(self, numbers: Sequence[int]) -> str:
        for number in numbers:
            self._launch(number)
        while any(self._places[number].ready_since is None for number in numbers):
            event = self._next()
            if isinstance(event, str):
                return event
            if isinstance(event, Failed):
                raise WorkerFailed(event.error, event.exit_code)
            was_ready = self._places[event.number].ready_since is not None
            self.handle(event)
            if isinstance(event, Ended) and not was_ready:
                raise WorkerFailed(f"worker {event.number} ended before it was ready; the log says how", 1)
        return ""

    def _next(self) -> Ready | Failed | Ended | str:
        """What comes next; meanwhile start what is due."""
        while True:
            wait = self.start_due()
            with suppress(Empty):
                return self._events.get(timeout=wait)

    def _launch(self, number: int) -> None:
        place = self._places[number]
        place.due = None
        place.worker = self._start(number, self._events.put)
        LOG.info("worker started", extra={"fields": {"worker": number, "pid": place.worker.pid}})


def _how_ended(exit_code: int) -> dict[str, Any]:
    return {"signal": signal.Signals(-exit_code).name} if exit_code < 0 else {"exit_code": exit_code}


def run(options: ServerOptions) -> int:
    """Serve with several workers until SIGTERM or SIGINT; returns the exit code.

    Args:
        options: How; `workers` says how many.

    Raises:
        AddressUnavailable: An address is malformed, or somebody else has it.
        WorkerFailed: A worker cannot start.
    """
    with ExitStack() as stack:
        log = stack.enter_context(log_to_stderr())
        shared: dict[str, Any] = {name: stack.enter_context(_held(options, name)) for name in SHARED}
        worker_options = replace(options, metrics_address="", ready_file=None, **shared)
        supervisor = Supervisor(options.workers, lambda number, tell: WorkerProcess(worker_options, number, tell))
        stack.enter_context(stop_signals(supervisor.tell))
        metrics_address = stack.enter_context(_endpoint(options, supervisor, log))
        try:
            told = supervisor.bring_up()
        except BaseException:
            supervisor.end(0.0)
            raise
        if not told:
            addresses = {**dict.fromkeys(ADDRESSES, ""), **shared, "metrics_address": metrics_address}
            announce(options, {**addresses, **supervisor.ready, "workers": supervisor.pids})
            told = supervisor.keep_up()
        LOG.info("stopping", extra={"fields": {"signal": told, "workers": supervisor.pids}})
        drained = supervisor.end(options.drain_wait + options.grace + SLACK)
        LOG.info("stopped", extra={"fields": {"drained": drained}})
    return 0 if drained else 1


@contextmanager
def _held(options: ServerOptions, name: str) -> Iterator[str]:
    """Hold one of the shared addresses, if it is asked for."""
    address = getattr(options, name)
    if not address:
        yield ""
        return
    port = SharedPort(SHARED[name], address)
    try:
        yield port.address
    finally:
        port.close()


@contextmanager
def _endpoint(options: ServerOptions, supervisor: Supervisor, log: LogWriter) -> Iterator[str]:
    """Offer the series of all workers, if that is asked for."""
    if not options.metrics_address:
        yield ""
        return
    registry = CollectorRegistry()
    ProcessCollector(namespace="lowpass_supervisor", registry=registry)
    registry.register(DroppedLines("lowpass_supervisor_log_lines_dropped", lambda: log.dropped))
    registry.register(MergedSeries(supervisor.states))
    endpoint = MetricsEndpoint(*split_address("--metrics-address", options.metrics_address), registry)
    try:
        yield endpoint.address
    finally:
        endpoint.stop()
