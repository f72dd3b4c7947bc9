"""`lowpass serve --workers N`: the process that starts workers, keeps them up, merges their series and stops them.

Start: hold the addresses → the endpoint of all series → one worker → the others → all ready → announce.
What is wrong with a bundle, the first worker says once, and ends the whole as it would end a single server. From then
on a worker that ends is started again, after a wait that grows with each end in a row (`Backoff`), and so is one that
hangs: it gives no sign of life for `--worker-timeout`, and is ended by SIGTERM, then by SIGKILL.
Stop: SIGTERM to every worker → each drains → the endpoint last.
"""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector

from serve.process.lifecycle import ADDRESSES, announce, stop_signals
from serve.process.merged_series import DIED, HUNG, MergedSeries, WorkerState
from serve.process.options import ServerOptions
from serve.process.shared_port import SharedPort
from serve.process.worker import Ended, Failed, Ready, Report, Worker, WorkerProcess
from serve.telemetry.endpoint import MetricsEndpoint
from serve.telemetry.logs import LogWriter, log_to_stderr
from serve.telemetry.metrics import DroppedLines
from serve.transport.address import split_address

if TYPE_CHECKING:
    from serve.process.workers_admin import AdminFront, WorkersAdmin
    from serve.process.workers_console import ConsoleFront

LOG = logging.getLogger("lowpass.serve")
SHARED = {"address": "--address", "health_address": "--health-address", "http_address": "--http-address"}
SLACK = 10.0
"""Beyond its drain wait and grace, a worker may take so long to end, in seconds; then it is killed."""
FIRST, FACTOR, LONGEST, HEALTHY = 0.1, 2.0, 30.0, 60.0
LOADING = 300.0
"""A worker that is not ready yet may be silent for so long, in seconds: it imports and loads."""
LAST_CHANCE = 2.0
"""Between SIGTERM and SIGKILL to a worker that hangs, in seconds: most that hang cannot hear the first."""
LOOKS = 10
"""At each worker, within the time that one may be silent."""


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
        restarts: How often one was started again, by reason.
        heard: When it last gave a sign of life.
        kill_at: When to kill it, since it hangs; None for one that does not.
    """

    worker: Worker | None = None
    ready_since: float | None = None
    due: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    restarts: Counter[str] = field(default_factory=Counter)
    reason: str = DIED
    heard: float = 0.0
    kill_at: float | None = None


class Supervisor:
    """Keeps workers up.

    Args:
        start: Starts the worker of a number, which reports what becomes of it.
        clock: In seconds, rising.
        silent_at_most: A ready worker that gives no sign of life for so long is ended, in seconds; 0 for never.

    Attributes:
        ready: What the first worker said when it was ready.
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int, Report], Worker],
        clock: Callable[[], float] = monotonic,
        silent_at_most: float = 0.0,
    ) -> None:
        self._start = start
        self._clock = clock
        self._silent_at_most = silent_at_most
        self._looked = clock()
        self._places = [_Place() for _ in range(count)]
        self._events: SimpleQueue[Ready | Failed | Ended | str] = SimpleQueue()
        self.ready: dict[str, Any] = {}

    def tell(self, signal_name: str) -> None:
        """Let it stop; may be called from a signal handler."""
        self._events.put(signal_name)

    def states(self) -> list[WorkerState]:
        """The workers that serve, by number."""
        return [
            WorkerState(place.worker if place.ready_since is not None else None, dict(place.restarts))
            for place in self._places
        ]

    def is_serving(self) -> bool:
        """Whether any worker serves."""
        return any(place.ready_since is not None for place in self._places)

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
                place.restarts[place.reason] += 1
                try:
                    self._launch(number)
                except OSError as error:
                    wait = place.backoff.after(0.0)
                    place.due = self._clock() + wait
                    fields = {"worker": number, "error": str(error), "restart_in": wait}
                    LOG.error("worker cannot start", extra={"fields": fields})
        return min((place.due - self._clock() for place in self._places if place.due is not None), default=None)

    def end_hung(self) -> float | None:
        """End whoever has been silent for too long; returns the seconds until the next look, None for never."""
        if not self._silent_at_most:
            return None
        now, period = self._clock(), self._silent_at_most / LOOKS
        # What this process slept itself, in a frozen container or a machine without memory, is nobody's silence.
        slept = max(0.0, now - self._looked - 2 * period)
        self._looked = now
        for number, place in enumerate(self._places):
            if place.worker is None:
                continue
            place.heard = now if place.worker.is_alive() else place.heard + slept
            silent, which = now - place.heard, {"worker": number, "pid": place.worker.pid}
            bound = self._silent_at_most if place.ready_since is not None else max(LOADING, self._silent_at_most)
            if place.kill_at is None and silent > bound:
                LOG.error("worker hangs", extra={"fields": {**which, "silent": round(silent, 3)}})
                place.reason, place.kill_at = HUNG, now + LAST_CHANCE
                place.worker.terminate()
            elif place.kill_at is not None and now >= place.kill_at:
                place.worker.kill()
        return period

    def handle(self, event: Ready | Failed | Ended) -> None:
        """Take note of what became of a worker."""
        place = self._places[event.number]
        if place.worker is None:
            raise RuntimeError(f"worker {event.number} spoke after its end")
        which: dict[str, Any] = {"worker": event.number, "pid": place.worker.pid}
        if isinstance(event, Ready):
            place.ready_since = place.heard = self._clock()
            self.ready = self.ready or event.content
            LOG.info("worker ready", extra={"fields": {**which, **event.content}})
        elif isinstance(event, Failed):
            LOG.error("worker cannot start", extra={"fields": {**which, "error": event.error}})
        else:
            which |= _how_ended(place.worker.reap())
            served = 0.0 if place.ready_since is None else self._clock() - place.ready_since
            wait = place.backoff.after(served)
            place.worker, place.ready_since, place.due = None, None, self._clock() + wait
            which |= {"served": round(served, 3), "reason": place.reason, "restart_in": wait}
            LOG.error("worker ended", extra={"fields": which})

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
        """What comes next; meanwhile start what is due, and end who hangs."""
        while True:
            waits = [wait for wait in (self.start_due(), self.end_hung()) if wait is not None]
            with suppress(Empty):
                return self._events.get(timeout=max(0.0, min(waits)) if waits else None)

    def _launch(self, number: int) -> None:
        place = self._places[number]
        place.due, place.kill_at = None, None
        place.worker = self._start(number, self._events.put)
        place.reason, place.heard = DIED, self._clock()
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
        service = stack.enter_context(_workers_admin(options))
        worker_options = _of_workers(options, shared)
        supervisor = Supervisor(
            options.workers,
            lambda number, tell: WorkerProcess(worker_options, number, tell, service),
            silent_at_most=options.worker_timeout,
        )
        stack.enter_context(stop_signals(supervisor.tell))
        series = _series_of_all(supervisor, log)
        shared["metrics_address"] = stack.enter_context(_endpoint(options, series))
        with _fronts(options, service, supervisor, series) as fronts:
            try:
                told = supervisor.bring_up()
            except BaseException:
                supervisor.end(0.0)
                raise
            if not told:
                opened = {name: front.open() for name, front in fronts.items()}
                addresses = {**dict.fromkeys(ADDRESSES, ""), **shared, **opened}
                announce(options, {**addresses, **supervisor.ready, "workers": supervisor.pids})
                told = supervisor.keep_up()
        LOG.info("stopping", extra={"fields": {"signal": told, "workers": supervisor.pids}})
        drained = supervisor.end(options.drain_wait + options.grace + SLACK)
        LOG.info("stopped", extra={"fields": {"drained": drained}})
    return 0 if drained else 1


def _of_workers(options: ServerOptions, shared: Mapping[str, Any]) -> ServerOptions:
    """Options of a worker: what there is once is the supervisor's.

    Args:
        shared: Addresses that workers share.
    """
    return replace(
        options,
        metrics_address="",
        ready_file=None,
        admin_address="",
        admin_api_keys=None,
        admin_open=False,
        console_address="",
        jobs=None,
        frontier=None,
        **shared,
    )


@contextmanager
def _workers_admin(options: ServerOptions) -> Iterator[WorkersAdmin | None]:
    """What changes models in all workers, where anybody may."""
    if options.repository is None or not (options.admin_address or options.console_address):
        yield None
        return
    # Only here: it brings gRPC, which a supervisor without it never speaks.
    from serve.process.changes import Changes
    from serve.process.workers_admin import WorkersAdmin

    changes = Changes(options.split_shares, options.shadow_rules)
    service = WorkersAdmin(options.repository, options.workers, changes)
    try:
        yield service
    finally:
        service.close()


@contextmanager
def _fronts(
    options: ServerOptions, service: WorkersAdmin | None, supervisor: Supervisor, series: CollectorRegistry
) -> Iterator[dict[str, AdminFront | ConsoleFront]]:
    """Hold the addresses where models are changed, as far as there are some; closed before the workers end."""
    fronts: dict[str, AdminFront | ConsoleFront] = {}
    try:
        if service is not None and options.admin_address:
            from serve.process.workers_admin import AdminFront

            fronts["admin_address"] = AdminFront(options, service)
        if service is not None and options.console_address:
            from serve.process.workers_console import ConsoleFront

            fronts["console_address"] = ConsoleFront(options, service, series, supervisor.is_serving)
        yield fronts
    finally:
        for front in reversed(fronts.values()):
            front.close()


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


def _series_of_all(supervisor: Supervisor, log: LogWriter) -> CollectorRegistry:
    """The series of all workers, and the supervisor's own."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="lowpass_supervisor", registry=registry)
    registry.register(DroppedLines("lowpass_supervisor_log_lines_dropped", lambda: log.dropped))
    registry.register(MergedSeries(supervisor.states))
    return registry


@contextmanager
def _endpoint(options: ServerOptions, series: CollectorRegistry) -> Iterator[str]:
    """Offer the series of all workers, if that is asked for."""
    if not options.metrics_address:
        yield ""
        return
    endpoint = MetricsEndpoint(*split_address("--metrics-address", options.metrics_address), series)
    try:
        yield endpoint.address
    finally:
        endpoint.stop()
